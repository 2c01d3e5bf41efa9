//! The layers around a handler; any `tower` layer fits too.
