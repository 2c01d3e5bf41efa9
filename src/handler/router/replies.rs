//! What a handler published, as the inbox keeps it.
