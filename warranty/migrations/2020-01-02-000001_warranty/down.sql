DROP TABLE closes;
DROP TABLE warranty;
