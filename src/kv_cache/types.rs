//! Which type the keys and values of every layer are kept in.

use crate::error::Error;
use raglan_shaders::KvType;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

/// The types of a model's keys and values, layer by layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvTypes {
    /// Of layers that `layers` do not name.
    pub default: KvType,
    /// Layers of another type; the last that names a layer says it.
    pub layers: Vec<(Range<usize>, KvType)>,
    /// Whether what 4 bits hold is rotated first; without it for measuring what that brings.
    pub rotate: bool,
    /// Whether quantised keys lose their mean first; without it for measuring what that brings.
    pub center: bool,
}

impl From<KvType> for KvTypes {
    fn from(default: KvType) -> KvTypes {
        KvTypes { default, layers: Vec::new(), rotate: true, center: true }
    }
}

impl KvTypes {
    /// The type of a layer.
    pub fn of_layer(&self, layer: usize) -> KvType {
        let named = self.layers.iter().rev().find(|(layers, _)| layers.contains(&layer));
        named.map_or(self.default, |(_, kv)| *kv)
    }

    /// The types of the first `layers` layers.
    pub fn of_layers(&self, layers: usize) -> Vec<KvType> {
        (0..layers).map(|layer| self.of_layer(layer)).collect()
    }

    /// # Errors
    /// If it names layers that a model of so many does not have.
    pub fn check(&self, layers: usize) -> Result<(), Error> {
        let beyond = self.layers.iter().map(|(named, _)| named.end).filter(|&end| end > layers).max();
        beyond.map_or(Ok(()), |end| {
            let message = format!("the KV type {self} names layer {}; the last is {}", end - 1, layers.max(1) - 1);
            Err(Error::Request { message })
        })
    }
}

impl fmt::Display for KvTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.default)?;
        if !self.rotate {
            f.write_str(":unrotated")?;
        }
        if !self.center {
            f.write_str(":uncentred")?;
        }
        for (layers, kv) in &self.layers {
            match layers.len() {
                1 => write!(f, ",{}={kv}", layers.start)?,
                _ => write!(f, ",{}-{}={kv}", layers.start, layers.end - 1)?,
            }
        }
        Ok(())
    }
}

impl FromStr for KvTypes {
    type Err = String;

    /// Reads `int4`, or `int4,0-1=f16,29=int8`: first the type of all layers, then layers from 0 that have another. After the first
    /// type may stand `:unrotated` and `:uncentred`.
    ///
    /// # Errors
    /// What is wrong where.
    fn from_str(text: &str) -> Result<KvTypes, String> {
        let mut parts = text.split(',').map(str::trim);
        let mut words = parts.next().unwrap_or_default().split(':');
        let mut types = KvTypes::from(words.next().unwrap_or_default().parse::<KvType>()?);
        for word in words {
            match word {
                "unrotated" => types.rotate = false,
                "uncentred" => types.center = false,
                _ => return Err(format!(":{word} is not known; there are :unrotated and :uncentred")),
            }
        }
        for part in parts {
            let (layers, kv) = part.split_once('=').ok_or_else(|| wrong_layers(part))?;
            types.layers.push((parse_layers(layers).ok_or_else(|| wrong_layers(part))?, kv.parse()?));
        }
        Ok(types)
    }
}

/// `3` or `0-3`, both ends included.
fn parse_layers(text: &str) -> Option<Range<usize>> {
    let number = |text: &str| text.trim().parse::<u32>().ok().map(|layer| layer as usize);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then(|| first..last + 1)
}

fn wrong_layers(part: &str) -> String {
    format!("{part:?} names no layers and their type, as 0-1=f16 or 29=int8 do")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["f16", "int8", "int4,0-1=f16,29=int8", "int4:unrotated:uncentred", "k8v4:uncentred,3=f32"] {
            let types: KvTypes = text.parse().expect(text);
            assert_eq!(types.to_string(), text);
        }
    }

    #[test]
    fn the_last_that_names_a_layer_says_its_type() {
        let types: KvTypes = "int4, 0-2=f16, 2=int8".parse().expect("it is sound");
        assert_eq!(types.of_layers(4), [KvType::F16, KvType::F16, KvType::Int8, KvType::Int4]);
        assert!(types.check(3).is_ok());
        assert!(types.check(2).is_err_and(|error| error.to_string().contains("layer 2")));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, wanted) in [
            ("", "f32, f16, int8, k8v4, int4"),
            ("int4:turned", ":unrotated"),
            ("int4,3", "0-1=f16"),
            ("int4,3-1=f16", "0-1=f16"),
            ("int4,-1=f16", "0-1=f16"),
            ("int4,99999999999=f16", "0-1=f16"),
            ("int4,1=q4", "\"q4\""),
        ] {
            let error = text.parse::<KvTypes>().expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }
}
