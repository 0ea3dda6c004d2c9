pub fn work(_: &std::path::Path) {}
pub fn work_under_a_file_size_limit(_: &std::path::Path) {}
pub fn killed_at_work() {}
pub fn full() {}
pub fn corrupted() {}
pub fn stale_epoch() {}
