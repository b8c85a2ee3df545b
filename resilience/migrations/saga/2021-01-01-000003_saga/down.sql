DROP TABLE saga_step;
DROP TABLE saga;
