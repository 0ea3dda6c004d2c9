mod closed_loop;
mod sim;
