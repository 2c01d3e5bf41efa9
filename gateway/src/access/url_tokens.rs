//! Finds tokens in the query of a URL, where they do not belong: URLs stand in the logs of
//! proxies and in the history of browsers.

use crate::http::percent_decoded;

/// The parameters that carry a token in other APIs.
const TOKEN_PARAMETERS: [&str; 3] = ["access_token", "token", "api_key"];

/// Whether the query has a parameter for a token, in any case and percent-encoded or not.
pub(super) fn has_token(query: &str) -> bool {
    query.split(['&', ';']).any(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default();
        let name = percent_decoded(name.as_bytes());
        let is_name = |token: &&str| name.eq_ignore_ascii_case(token.as_bytes());
        TOKEN_PARAMETERS.iter().any(is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_queries_are_found() {
        for (query, expected) in [
            ("access_token=x", true),
            ("type=a&token=x", true),
            ("api_key", true),
            ("type=a;api_key=x", true),
            ("Access_Token=x", true),
            ("TOKEN=", true),
            ("access%5Ftoken=x", true),
            ("%74%6F%6b%65%6e=x", true),
            ("", false),
            ("type=token", false),
            ("tokens=3", false),
            ("page_token=x", false),
            ("%=x&%7=x&%zz=x", false),
            ("tok%65n%=x", false),
        ] {
            assert_eq!(has_token(query), expected, "{query:?}");
        }
    }
}
