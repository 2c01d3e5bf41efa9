//! Dead letters: the original record byte for byte, with the reason in its headers.
