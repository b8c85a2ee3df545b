-- What is discarded ends as what is done does: it is deleted when its retention is over.
CREATE INDEX deferred_discarded ON deferred (discarded_at)
    WHERE state = 'parked' AND discarded_at IS NOT NULL;
