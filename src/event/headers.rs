//! Record headers in one flat buffer.
//!
//! Owns the packed form in which headers travel from the poll thread to a handler: copied once, parsed only when a
//! handler asks. Order and duplicates are kept; names and values are any bytes, and reading them is total.

/// An ordered list of record headers. Names may repeat; a value may be absent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    packed: Vec<u8>,
}

/// Marks an absent value in the packed form, where a length would stand.
const ABSENT: u32 = u32::MAX;

impl Headers {
    /// No headers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a header; an earlier one of the same name stays.
    pub fn push(&mut self, name: &str, value: Option<&[u8]>) {
        pack(&mut self.packed, name.as_bytes(), value);
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packed.is_empty()
    }

    /// The headers in order.
    pub fn iter(&self) -> HeadersIter<'_> {
        HeadersIter::over(&self.packed)
    }

    /// The value of the last header of that name, which is the one that counts; names are case-sensitive.
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

/// Iterates over packed headers as `(name, value)`.
#[derive(Clone)]
pub struct HeadersIter<'a> {
    rest: &'a [u8],
}

impl<'a> HeadersIter<'a> {
    pub(crate) fn over(packed: &'a [u8]) -> Self {
        Self { rest: packed }
    }

    /// The value of the last header of that name, which is the one that counts; names are case-sensitive. None when
    /// there is no such header or the last one has no value.
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
