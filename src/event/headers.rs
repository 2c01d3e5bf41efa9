//! Record headers in one flat buffer.
//!
//! Owns the packed form in which headers travel from the poll thread to a handler: copied once, and
//! parsed only when a handler asks for them. Order and duplicates are kept. Names and values are
//! any bytes, and reading them is total. Does not know the meaning of any header.

/// An ordered list of record headers. Names may repeat, and a value may be absent.
///
/// `Debug` prints names and the lengths of values, and no value: headers may carry credentials.
///
/// ```
/// use evenkeel::event::Headers;
///
/// let mut headers = Headers::new();
/// headers.push("attempt", Some("1".as_bytes()));
/// headers.push("attempt", Some("2".as_bytes()));
/// assert_eq!(headers.last("attempt"), Some("2".as_bytes()));
/// assert_eq!(headers.iter().count(), 2);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    packed: Vec<u8>,
}

/// Marks an absent value in the packed form, in place of a length.
const ABSENT: u32 = u32::MAX;

impl Headers {
    /// Creates an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty list with room for this many bytes of names and values.
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            packed: Vec::with_capacity(bytes),
        }
    }

    /// Appends a header. An earlier one of the same name stays.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        pack(&mut self.packed, name.as_bytes(), value);
    }

    /// [`Headers::push`] for a name of any bytes, such as a received one.
    pub fn push_bytes(&mut self, name: &[u8], value: Option<&[u8]>) {
        pack(&mut self.packed, name, value);
    }

    /// Whether the list is empty.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// The headers in order, as name and value.
    pub fn iter(&self) -> HeadersIter<'_> {
        HeadersIter::of_packed(&self.packed)
    }

    /// The value of the last header of this name, which overrides earlier ones. None if there is no
    /// such header, or the last one has no value. Names are case-sensitive.
    pub fn last(&self, name: &str) -> Option<&[u8]> {
        self.iter().last_value(name)
    }
}

impl<'a> FromIterator<(&'a [u8], Option<&'a [u8]>)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>>(headers: I) -> Self {
        let mut packed = Vec::new();
        for (name, value) in headers {
            pack(&mut packed, name, value);
        }
        Self { packed }
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list()
            .entries(
                self.iter()
                    .map(|(name, value)| (String::from_utf8_lossy(name), value.map(<[u8]>::len))),
            )
            .finish()
    }
}

/// Appends one header in packed form: name length, name, value length or [`ABSENT`], value.
pub(crate) fn pack(into: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    into.extend_from_slice(&(name.len() as u32).to_le_bytes());
    into.extend_from_slice(name);
    let length = value.map_or(ABSENT, |value| value.len() as u32);
    into.extend_from_slice(&length.to_le_bytes());
    into.extend_from_slice(value.unwrap_or_default());
}

/// Iterates over packed headers as `(name, value)`. A clone continues from the same place. Bytes
/// that are not packed headers end the iteration.
#[derive(Clone)]
pub struct HeadersIter<'a> {
    rest: &'a [u8],
}

impl std::fmt::Debug for HeadersIter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = self.clone().map(|(name, _)| String::from_utf8_lossy(name));
        f.debug_list().entries(names).finish()
    }
}

impl<'a> HeadersIter<'a> {
    pub(crate) fn of_packed(packed: &'a [u8]) -> Self {
        Self { rest: packed }
    }

    /// The value of the last header of this name, which overrides earlier ones. None if there is no
    /// such header, or the last one has no value. Names are case-sensitive.
    pub fn last_value(self, name: &str) -> Option<&'a [u8]> {
        self.filter(|(header, _)| *header == name.as_bytes())
            .last()
            .and_then(|(_, value)| value)
    }

    fn take(&mut self, length: u32) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length as usize)?;
        self.rest = rest;
        Some(taken)
    }

    fn length(&mut self) -> Option<u32> {
        let bytes = self.take(4)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    }
}

impl<'a> Iterator for HeadersIter<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let name_length = self.length()?;
        let name = self.take(name_length)?;
        let value = match self.length()? {
            ABSENT => None,
            length => Some(self.take(length)?),
        };
        Some((name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_last_header_of_a_name_counts_even_without_value() {
        let mut headers = Headers::new();
        assert!(headers.is_empty());
        headers.push("a", Some(b"1"));
        headers.push("A", Some(b"2"));
        headers.push("a", Some(b""));
        assert_eq!(headers.last("a"), Some(&b""[..]));
        assert_eq!(headers.last("A"), Some(&b"2"[..]));
        headers.push("a", None);
        assert_eq!(headers.last("a"), None);
        assert_eq!(headers.last("b"), None);
        assert_eq!(headers.iter().count(), 4);
    }

    #[test]
    fn a_large_value_is_kept_whole() {
        let value = vec![0xff; 1 << 20];
        let mut headers = Headers::new();
        headers.push("big", Some(&value));
        headers.push("after", Some(b"1"));
        assert_eq!(headers.last("big"), Some(value.as_slice()));
        assert_eq!(headers.last("after"), Some(&b"1"[..]));
    }

    #[test]
    fn debug_shows_names_and_lengths_but_no_values() {
        let mut headers = Headers::new();
        headers.push("authorization", Some(b"hunter2"));
        assert_eq!(format!("{headers:?}"), r#"[("authorization", Some(7))]"#);
    }

    type Pairs = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    proptest! {
        #[test]
        fn any_names_and_values_are_read_as_they_were_packed(pairs: Pairs) {
            let mut packed = Vec::new();
            for (name, value) in &pairs {
                pack(&mut packed, name, value.as_deref());
            }
            let read: Pairs = HeadersIter::of_packed(&packed)
                .map(|(name, value)| (name.to_vec(), value.map(<[u8]>::to_vec)))
                .collect();
            prop_assert_eq!(read, pairs);
        }

        #[test]
        fn any_bytes_in_place_of_packed_headers_end_without_panic(bytes: Vec<u8>) {
            prop_assert!(HeadersIter::of_packed(&bytes).count() <= bytes.len());
        }
    }
}
