alter table product validate constraint product_category;
alter table product validate constraint product_language;
alter table product validate constraint product_images;
