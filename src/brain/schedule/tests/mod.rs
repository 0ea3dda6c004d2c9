//! The scheduler as its users meet it: configurations, formulas, behaviour, and what comes of it on
//! a simulated fleet.

mod closed_loop;
mod config;
mod fixture;
mod formulas;
mod plugins;
mod predicted_cost;
mod scheduler;
mod sim;
