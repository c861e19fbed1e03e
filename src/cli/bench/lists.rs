//! Lists of numbers as users write them.

use std::str::FromStr;

/// Tokens or sequences of one test at most.
const MOST: usize = 1 << 30;

/// `512,2048`
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli) struct Numbers(pub(in crate::cli) Vec<usize>);

impl FromStr for Numbers {
    type Err = String;

    fn from_str(text: &str) -> Result<Numbers, String> {
        let numbers = text.split(',').map(|part| number(part.trim())).collect::<Result<Vec<_>, _>>()?;
        Ok(Numbers(numbers))
    }
}

/// `512,4096,32768x2`: a number `x` times.
///
/// # Errors
/// What was met and what was wanted.
pub(in crate::cli) fn mix(text: &str) -> Result<Numbers, String> {
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (length, times) = part.trim().split_once('x').unwrap_or((part.trim(), "1"));
        let times = number(times)?;
        if times == 0 || times > 8192 {
            return Err(format!("{part:?}: wanted 1 to 8192 sequences"));
        }
        numbers.extend(vec![number(length)?; times]);
    }
    Ok(Numbers(numbers))
}

fn number(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number <= MOST);
    number.ok_or_else(|| format!("{text:?} is no whole number from 0 to {MOST}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_mixes_are_read_and_other_things_refused() {
        assert_eq!("512,2048".parse(), Ok(Numbers(vec![512, 2048])));
        assert_eq!(mix("512, 4096,32768x2"), Ok(Numbers(vec![512, 4096, 32_768, 32_768])));
        for text in ["", "1,,2", "x", "-1", "1.5", "99999999999"] {
            assert!(text.parse::<Numbers>().is_err(), "{text:?}");
        }
        for text in ["", "512x", "x2", "512x0", "512x9999"] {
            assert!(mix(text).is_err(), "{text:?}");
        }
    }
}
