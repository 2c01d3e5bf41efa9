//! Decodes Base64 (RFC 4648, standard alphabet, padded) in `data_base64`. Payloads are written as
//! JSON, so there is no encoder.

/// Decodes a text. None if it is not padded, canonical Base64.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let (groups, []) = text.as_chunks::<4>() else {
        return None;
    };
    let mut bytes = Vec::with_capacity(groups.len() * 3);
    for (index, group) in groups.iter().enumerate() {
        let digits = match group {
            [.., b'=', b'='] => 2,
            [.., b'='] => 3,
            _ => 4,
        };
        if digits < 4 && index + 1 < groups.len() {
            return None;
        }
        let mut bits = 0;
        for byte in &group[..digits] {
            bits = bits << 6 | sextet(*byte)?;
        }
        bits <<= 6 * (4 - digits);
        let [_, group @ ..] = bits.to_be_bytes();
        let (kept, cut) = group.split_at(digits - 1);
        // Unused bits must be zero, so that every payload has one text.
        if cut.iter().any(|byte| *byte != 0) {
            return None;
        }
        bytes.extend_from_slice(kept);
    }
    Some(bytes)
}

fn sextet(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::decode;

    #[test]
    fn the_vectors_of_the_rfc_decode() {
        let vectors: [(&str, &str); 7] = [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9vYmE=", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ];
        for (text, expected) in vectors {
            assert_eq!(
                decode(text.as_bytes()).as_deref(),
                Some(expected.as_bytes()),
                "{text}"
            );
        }
        assert_eq!(decode(b"+/+/").as_deref(), Some(&[0xfb, 0xff, 0xbf][..]));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "Zg", "Zg=", "Zg==Zg==", "====", "Z===", "Zh==", "Zm9=", "Zm9v\n", "Zm-_", "=m9v",
        ] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }
}
