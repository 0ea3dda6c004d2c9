mod closed_loop;
mod perf;
mod sim;
