//! Everything together, from outside.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails where it is")]

mod broker;
mod claims;
mod crashes;
mod dashboard;
mod database;
mod doctor;
mod faults;
mod footprint;
mod keys;
mod launcher;
mod load;
mod locked;
mod loss;
mod lost_replies;
mod operator;
mod outage;
mod overload;
mod purchase;
mod quiet;
mod readme;
mod reads;
mod replicas;
mod rolling;
mod secrets;
mod ship;
mod shutdown;
mod soak;
mod storm;
mod telemetry;
mod world;
