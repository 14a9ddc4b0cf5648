-- no-transaction
-- SKUs with a threshold. Not those whose stock is low: then each sale of a SKU would have to write to the index.
create index concurrently stock_with_threshold on stock (sku) where low_at is not null;
