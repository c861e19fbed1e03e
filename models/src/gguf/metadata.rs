//! The keys and values of a GGUF file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::cursor::Cursor;
use crate::Error;

/// What a GGUF file says of itself.
#[derive(Debug)]
pub struct Metadata {
    path: PathBuf,
    values: BTreeMap<String, Value>,
}

/// A value; widths of numbers are dropped.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// Any float. One of 32 bits is the shortest decimal that it stands for, so that 1e-5 is 1e-5.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// A string.
    Text(String),
    /// An array.
    List(List),
}

/// An array; a GGUF array has one type for all its elements.
#[derive(Debug, Clone, PartialEq)]
pub enum List {
    /// 8-bit integers, signed ones by their bits.
    Bytes(Vec<u8>),
    /// Wider integers.
    Integers(Vec<i64>),
    /// Floats.
    Floats(Vec<f64>),
    /// Truth values.
    Bools(Vec<bool>),
    /// Strings.
    Texts(Vec<String>),
}

impl Metadata {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.values.get(key)
    }

    /// Every key, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn typed<'a, T>(
        &'a self,
        key: &str,
        wanted: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        self.get(key)
            .map(|value| read(value).ok_or_else(|| Error::malformed(&self.path, key, value.short(), wanted)))
            .transpose()
    }

    /// A string.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Error> {
        self.typed(key, "a string", |value| if let Value::Text(text) = value { Some(text.as_str()) } else { None })
    }

    /// A whole number of at least 0.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub fn unsigned(&self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "a whole number of at least 0", |value| match value {
            Value::Unsigned(number) => Some(*number),
            Value::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        })
    }

    /// A finite number.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        self.typed(key, "a finite number", |value| match value {
            Value::Unsigned(number) => Some(*number as f64),
            Value::Signed(number) => Some(*number as f64),
            Value::Float(number) if number.is_finite() => Some(*number),
            _ => None,
        })
    }

    /// True or false.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "true or false", |value| if let Value::Bool(flag) = value { Some(*flag) } else { None })
    }

    /// An array of strings.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>, Error> {
        self.typed(key, "an array of strings", |value| match value {
            Value::List(List::Texts(texts)) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// An array of integers wider than a byte.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub fn integers(&self, key: &str) -> Result<Option<&[i64]>, Error> {
        self.typed(key, "an array of integers", |value| match value {
            Value::List(List::Integers(integers)) => Some(integers.as_slice()),
            _ => None,
        })
    }

    /// An array of floats.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is anything else.
    pub fn floats(&self, key: &str) -> Result<Option<&[f64]>, Error> {
        self.typed(key, "an array of floats", |value| match value {
            Value::List(List::Floats(floats)) => Some(floats.as_slice()),
            _ => None,
        })
    }

    /// To how many bytes tensors are aligned.
    ///
    /// # Errors
    /// [`Error::Malformed`] where it is no power of two.
    pub(super) fn alignment(&self) -> Result<usize, Error> {
        let key = "general.alignment";
        let alignment = self.unsigned(key)?.unwrap_or(32);
        match usize::try_from(alignment) {
            Ok(alignment) if alignment.is_power_of_two() => Ok(alignment),
            _ => Err(Error::malformed(&self.path, key, alignment, "a power of two")),
        }
    }
}

impl Value {
    /// For messages: no longer than a line.
    pub(super) fn short(&self) -> String {
        match self {
            Value::Unsigned(number) => number.to_string(),
            Value::Signed(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Bool(flag) => flag.to_string(),
            Value::Text(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
            Value::List(_) => "an array".into(),
        }
    }
}

/// Reads `count` keys and their values.
///
/// # Errors
/// [`Error::Malformed`] for anything that breaks the format.
pub(super) fn read(cursor: &mut Cursor<'_>, count: u64) -> Result<Metadata, Error> {
    let mut values = BTreeMap::new();
    for index in 0..count {
        let field = format_args!("key {index} of {count}").to_string();
        let key = cursor.text(&field)?;
        let kind = cursor.u32(&format_args!("{key}: the type"))?;
        let value = read_value(cursor, key, kind)?;
        if values.insert(key.to_owned(), value).is_some() {
            return Err(cursor.malformed(&key, "there twice", "there once"));
        }
    }
    Ok(Metadata { path: cursor.path().into(), values })
}

fn read_value(cursor: &mut Cursor<'_>, key: &str, kind: u32) -> Result<Value, Error> {
    Ok(match kind {
        0 => Value::Unsigned(u8::from_le_bytes(cursor.array(&key)?).into()),
        1 => Value::Signed(i8::from_le_bytes(cursor.array(&key)?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(cursor.array(&key)?).into()),
        3 => Value::Signed(i16::from_le_bytes(cursor.array(&key)?).into()),
        4 => Value::Unsigned(cursor.u32(&key)?.into()),
        5 => Value::Signed(i32::from_le_bytes(cursor.array(&key)?).into()),
        6 => Value::Float(widen(f32::from_le_bytes(cursor.array(&key)?))),
        7 => Value::Bool(truth(cursor.array::<1>(&key)?[0], cursor, key)?),
        8 => Value::Text(cursor.text(&key)?.to_owned()),
        9 => Value::List(read_list(cursor, key)?),
        10 => Value::Unsigned(cursor.u64(&key)?),
        11 => Value::Signed(i64::from_le_bytes(cursor.array(&key)?)),
        12 => Value::Float(f64::from_le_bytes(cursor.array(&key)?)),
        _ => return Err(cursor.malformed(&format_args!("{key}: the type"), kind, "0 to 12")),
    })
}

/// The decimal that the writer had in mind.
fn widen(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn truth(byte: u8, cursor: &Cursor<'_>, key: &str) -> Result<bool, Error> {
    match byte {
        0 | 1 => Ok(byte == 1),
        _ => Err(cursor.malformed(&key, format_args!("the truth value {byte}"), "0 or 1")),
    }
}

fn read_list(cursor: &mut Cursor<'_>, key: &str) -> Result<List, Error> {
    let field = format!("{key}: the array");
    let kind = cursor.u32(&field)?;
    let length = cursor.u64(&field)?;
    let width: u64 = match kind {
        0 | 1 | 7 => 1,
        2 | 3 => 2,
        4..=6 => 4,
        8 | 10..=12 => 8, // a string has at least its length
        9 => return Err(cursor.malformed(&field, "an array of arrays", "an array of numbers or strings")),
        _ => return Err(cursor.malformed(&field, format_args!("of type {kind}"), "a type from 0 to 12")),
    };
    let room = cursor.remaining() as u64 / width;
    if length > room {
        let wanted = format_args!("at most {room}, all that the file has room for");
        return Err(cursor.malformed(&field, format_args!("{length} elements long"), wanted));
    }
    if kind == 8 {
        let texts: Result<_, _> =
            (0..length).map(|i| cursor.text(&format_args!("{key}[{i}]")).map(str::to_owned)).collect();
        return texts.map(List::Texts);
    }
    let bytes = cursor.take(length * width, &field)?;
    let integers = |list: &mut dyn Iterator<Item = i64>| List::Integers(list.collect());
    Ok(match kind {
        0 | 1 => List::Bytes(bytes.to_vec()),
        2 => integers(&mut bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b).into())),
        3 => integers(&mut bytes.as_chunks().0.iter().map(|b| i16::from_le_bytes(*b).into())),
        4 => integers(&mut bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b).into())),
        5 => integers(&mut bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into())),
        6 => List::Floats(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into()).collect()),
        7 => List::Bools(bytes.iter().map(|byte| truth(*byte, cursor, key)).collect::<Result<_, _>>()?),
        12 => List::Floats(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()),
        _ => {
            let signed = kind == 11;
            let read = bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b));
            let list: Vec<i64> = read.collect();
            match list.iter().find(|number| !signed && **number < 0) {
                Some(number) => {
                    return Err(cursor.malformed(&field, *number as u64, "integers of at most 2^63 - 1"));
                }
                None => List::Integers(list),
            }
        }
    })
}
