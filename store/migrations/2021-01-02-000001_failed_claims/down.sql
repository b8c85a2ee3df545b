ALTER TABLE claims DROP COLUMN failure;
