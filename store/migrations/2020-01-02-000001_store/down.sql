DROP TABLE refunds;
DROP TABLE claims;
DROP TABLE users;
