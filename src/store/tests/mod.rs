//! The store as a whole: against a model, through crashes, failures and restarts.

mod at_rest;
mod backups;
mod basic;
mod closing;
mod collisions;
mod crash;
mod faulty;
mod fixture;
mod floor;
mod limits;
mod model;
mod owner;
mod sharing;
mod stress;
mod sweeping;
mod together;
