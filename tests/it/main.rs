//! Tests with real processes and sockets; one module for each behaviour.

mod cli;
mod daemon;
mod harness;
mod layers;
mod signals;
