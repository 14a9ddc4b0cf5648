-- Every row there is satisfies them: their columns are new.
alter table reservation_line validate constraint reservation_line_returned;
alter table stock validate constraint stock_low;
