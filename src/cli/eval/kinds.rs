//! Lists of types.

use std::str::FromStr;

/// What is compared where nothing is asked for.
pub(super) const DEFAULT_KV: &str = "f16,int8,k8v4,int4,int4:unrotated";

/// Names by commas.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Kinds(pub(super) Vec<String>);

impl FromStr for Kinds {
    type Err = String;

    fn from_str(text: &str) -> Result<Kinds, String> {
        let mut kinds: Vec<String> = Vec::new();
        for part in text.split(',').map(str::trim) {
            match kinds.last_mut() {
                // A type for some layers belongs to the one before.
                Some(last) if part.contains('=') => *last = format!("{last},{part}"),
                _ if part.is_empty() => return Err(format!("{text:?} has a type without a name")),
                _ => kinds.push(part.to_owned()),
            }
        }
        for (index, kind) in kinds.iter().enumerate() {
            if kinds[..index].contains(kind) {
                return Err(format!("{kind} is there twice"));
            }
        }
        Ok(Kinds(kinds))
    }
}

/// Whole numbers by commas; `K` is 1024 of what is before it.
pub(super) fn counts(text: &str) -> Result<Counts, String> {
    let count = |part: &str| {
        let (digits, factor) = match part.strip_suffix(['k', 'K']) {
            Some(digits) => (digits, 1024),
            None => (part, 1),
        };
        let count = digits.parse::<u32>().ok().and_then(|count| (count as usize).checked_mul(factor));
        count.ok_or_else(|| format!("{part:?} is no whole number"))
    };
    text.split(',').map(|part| count(part.trim())).collect::<Result<_, _>>().map(Counts)
}

/// Whole numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Counts(pub(super) Vec<usize>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_split_at_commas_but_for_those_of_some_layers() {
        let kinds = |text: &str| text.parse::<Kinds>().map(|kinds| kinds.0);
        let met = kinds("f16, int4:unrotated,int4,0-1=f16,29=int8,k8v4").unwrap();
        assert_eq!(met, ["f16", "int4:unrotated", "int4,0-1=f16,29=int8", "k8v4"]);
        assert!(kinds("f16,,int8").unwrap_err().contains("without a name") && kinds("").is_err());
        assert!(kinds("f16,int8,f16").unwrap_err().contains("twice"));
    }

    #[test]
    fn counts_are_whole_numbers_and_thousands_of_1024() {
        assert_eq!(counts("512,1K, 2k"), Ok(Counts(vec![512, 1024, 2048])));
        for bad in ["", "1.5K", "-1", "K", "99999999999", "512,"] {
            assert!(counts(bad).is_err(), "{bad}");
        }
    }
}
