//! What attackers send: heads that two programs read differently, floods, and broken frames.
//!
//! - `framing`: where a request of HTTP/1.1 ends, and which host it names
//! - `texts`: paths, headers and bodies in bad UTF-8 or in odd spellings
//! - `http2`: resets, CONTINUATION frames and header bombs
//! - `websocket`: frames that are too large, unmasked or never complete
//! - `process`: the binary under 10,000 idle connections, bodies of 100 MB and slow heads

mod framing;
mod http2;
mod process;
mod texts;
mod websocket;
