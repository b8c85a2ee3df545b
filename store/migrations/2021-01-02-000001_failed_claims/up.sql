-- Why a claim could not be decided: a refusal (status, code and message), or that it was given up.
ALTER TABLE claims ADD COLUMN failure TEXT;
ALTER TABLE claims ADD CHECK ((status = 'FAILED') = (failure IS NOT NULL));
