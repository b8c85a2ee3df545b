DROP INDEX deferred_discarded;
