//! The columns of a dataset's Parquet file.

use crate::Dataset;

pub(super) fn read(_bytes: &[u8]) -> Result<Dataset, String> {
    Err("reading comes next".to_owned())
}

pub(super) fn write(_dataset: &Dataset) -> Result<Vec<u8>, String> {
    Err("writing comes next".to_owned())
}
