//! The scheduler as its users meet it; each plugin file's own arithmetic is in `formulas`.

mod closed_loop;
mod config;
mod fixture;
mod formulas;
mod plugins;
mod scheduler;
mod sim;
