//! A damaged log: the store can be read up to the damage, and be salvaged, and is never told to have lost less than it
//! has.

mod crashes;
mod kinds;
pub mod lab;
mod losses;
mod reading;
