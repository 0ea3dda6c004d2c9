//! The simulator on small worlds whose outcome is known.

