//! Rows to values and back. What is stored is written and read here, so that nothing else knows its form.

pub mod award;
pub mod budget;
pub mod checkpoint;
pub mod customer;
pub mod history;
pub mod purchase;
pub mod recorded;
pub mod refund;
pub mod running;
pub mod stretches;
