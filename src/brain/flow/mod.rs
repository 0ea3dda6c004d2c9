//! Admission: requests that cannot be placed yet wait here, boundedly.
