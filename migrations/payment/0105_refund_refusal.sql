-- Why the provider will not give back what an order that ended wants back, if it said so for good or again and again. Such a
-- payment rests: nothing asks for the money but an operator. Empty once anything goes back after all.
alter table payment add column refund_refusal text not null default '';
