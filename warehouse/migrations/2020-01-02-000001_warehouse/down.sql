DROP TABLE order_item;
DROP TABLE items;
