//! Sizes as users write them.

/// Reads `512MiB`, `2G`, `1.5GB` or `1073741824`: K, M, G and T are powers of 1024, with iB or without; of 1000 with B.
///
/// # Errors
/// What was met and what was wanted.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let wanted = || format!("{text:?} is no size; wanted one as 512MiB, 8G or 1.5GB");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim_start().to_ascii_lowercase();
    let (prefix, base) = match unit.strip_suffix("ib") {
        Some(prefix) if !prefix.is_empty() => (prefix, 1024.0f64),
        Some(_) => return Err(wanted()),
        None => match unit.strip_suffix('b') {
            Some(prefix) => (prefix, 1000.0),
            None => (unit.as_str(), 1024.0),
        },
    };
    let power = ["", "k", "m", "g", "t"].iter().position(|&known| known == prefix).ok_or_else(wanted)?;
    if power == 0 {
        return number.parse().map_err(|_| wanted());
    }
    let bytes = number.parse::<f64>().map_err(|_| wanted())? * base.powi(power as i32);
    // Under 2^63 the conversion is exact enough; no memory is larger.
    if bytes < 9e18 { Ok(bytes as u64) } else { Err(wanted()) }
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn sizes_are_powers_of_1024_but_with_a_plain_b() {
        for (text, wanted) in [
            ("0", 0),
            ("1073741824", 1 << 30),
            ("512MiB", 512 << 20),
            ("8G", 8 << 30),
            ("8g", 8 << 30),
            ("2 GiB", 2 << 30),
            ("1.5GB", 1_500_000_000),
            ("0.5K", 512),
            ("100B", 100),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(bytes(text), Ok(wanted), "{text}");
        }
        for text in ["", "G", "-1G", "1.5", "1iB", "1Q", "1GiBs", "1..2G", "99999999999T", "1e9"] {
            assert!(bytes(text).is_err(), "{text}: {:?}", bytes(text));
        }
    }
}
