DROP TABLE returns;
DROP TABLE orders;
