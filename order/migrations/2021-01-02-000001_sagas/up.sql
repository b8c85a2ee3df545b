-- What an unfinished return needs is in the journal of sagas.
DROP TABLE returns;
