//! Moving blocks of memory between processes and machines: one contract, several paths.
