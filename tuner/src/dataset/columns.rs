//! A dataset as Parquet: one row a measurement, the header as JSON in the file's key-value metadata.
//!
//! Columns, all required: `space`, `candidate`, `failure` (empty where there is none) as UTF-8; `by_rules`; `shape_NAME` for each dim of
//! any space, f32, NaN where the row's space has no such dim; `cost_bytes`, `cost_flops`, `cost_workgroups` and
//! `cost_workgroup_bytes`, f64; `us_0`, `us_1`, …, f32, NaN where the round was not measured. Pages are not compressed, so
//! that no size in a file makes a reader allocate.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{LogicalType, Repetition, Type as Physical};
use parquet::column::reader::get_typed_column_reader;
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::{Dataset, Header, Row};
use crate::space::shortened;
use crate::{Candidate, Cost};

/// The key of the header in the file's metadata; it ends with the version of the columns.
const HEADER_KEY: &str = "raglan_tuner_dataset_1";
/// Of a file.
pub(super) const MOST_BYTES: usize = 256 << 20;
const MOST_ROWS: usize = 1 << 20;
/// Rows times columns: what a small file of equal values may unfold to.
const MOST_CELLS: usize = 1 << 26;
/// Of candidates and failures, all rows together.
const MOST_TEXT: usize = 64 << 20;
const MOST_SPACES: usize = 64;
const MOST_ROUNDS: usize = 16;
/// Values that are decoded at once.
const BATCH: usize = 4096;
const COSTS: [&str; 4] = ["cost_bytes", "cost_flops", "cost_workgroups", "cost_workgroup_bytes"];

/// What breaks the rules of a header, if anything does.
fn header_fault(header: &Header) -> Option<String> {
    if header.spaces.len() > MOST_SPACES {
        return Some(format!("{} spaces, at most {MOST_SPACES} are allowed", header.spaces.len()));
    }
    header.spaces.iter().enumerate().find_map(|(at, space)| {
        let twice = header.spaces[..at].iter().any(|other| other.name == space.name);
        space.fault().or_else(|| twice.then(|| format!("the space {} is there twice", space.name)))
    })
}

/// The names of all dims of all spaces, in the alphabet's order.
fn dims(header: &Header) -> BTreeSet<&str> {
    header.spaces.iter().flat_map(|space| &space.dims).map(|dim| dim.name.as_str()).collect()
}

/// The space of a row: where its numbers go among `dims`.
fn places(header: &Header) -> BTreeMap<&str, Vec<usize>> {
    let all: Vec<&str> = dims(header).into_iter().collect();
    let place = |name: &str| all.iter().position(|other| *other == name);
    let of_space = |dims: &[crate::Dim]| dims.iter().filter_map(|dim| place(&dim.name)).collect();
    header.spaces.iter().map(|space| (space.name.as_str(), of_space(&space.dims))).collect()
}

pub(super) fn write(dataset: &Dataset) -> Result<Vec<u8>, String> {
    let header = &dataset.header;
    if let Some(fault) = header_fault(header) {
        return Err(fault);
    }
    let places = places(header);
    let rows = &dataset.rows;
    if rows.len() > MOST_ROWS {
        return Err(format!("{} rows, at most {MOST_ROWS} are allowed", rows.len()));
    }
    for row in rows {
        let wanted = places.get(row.space.as_str()).ok_or_else(|| format!("no space {:?}", row.space))?.len();
        if row.shape.len() != wanted || !row.shape.iter().all(|x| x.is_finite()) || row.times_us.len() > MOST_ROUNDS {
            return Err(format!("{}: a row of shape {:?}, {wanted} numbers are wanted", row.space, row.shape));
        }
    }
    let rounds = rows.iter().map(|row| row.times_us.len()).max().unwrap_or(0);
    let names = dims(header);
    let text = |value: &str| ByteArray::from(value.as_bytes().to_vec());
    let mut texts: HashMap<&Candidate, ByteArray> = HashMap::new();
    for row in rows {
        texts.entry(&row.candidate).or_insert_with(|| text(&row.candidate.to_string()));
    }
    let failure = |row: &Row| match row.failure.as_deref() {
        None => text(""),
        Some("") => text("failed"),
        Some(words) => text(&shortened(words)),
    };
    let number = |row: &Row, place: usize| {
        let at = places[row.space.as_str()].iter().position(|other| *other == place);
        at.map_or(f32::NAN, |at| row.shape[at])
    };

    let write = || -> parquet::errors::Result<Vec<u8>> {
        let mut file = SerializedFileWriter::new(Vec::new(), schema(&names, rounds)?, properties(header)?)?;
        let mut group = file.next_row_group()?;
        column::<ByteArrayType>(&mut group, rows.iter().map(|row| text(&row.space)))?;
        column::<ByteArrayType>(&mut group, rows.iter().map(|row| texts[&row.candidate].clone()))?;
        column::<ByteArrayType>(&mut group, rows.iter().map(failure))?;
        column::<BoolType>(&mut group, rows.iter().map(|row| row.by_rules))?;
        for place in 0..names.len() {
            column::<FloatType>(&mut group, rows.iter().map(|row| number(row, place)))?;
        }
        column::<DoubleType>(&mut group, rows.iter().map(|row| row.cost.bytes))?;
        column::<DoubleType>(&mut group, rows.iter().map(|row| row.cost.flops))?;
        column::<DoubleType>(&mut group, rows.iter().map(|row| row.cost.workgroups))?;
        column::<DoubleType>(&mut group, rows.iter().map(|row| row.cost.workgroup_bytes))?;
        for round in 0..rounds {
            let time = |row: &Row| row.times_us.get(round).copied().unwrap_or(f32::NAN);
            column::<FloatType>(&mut group, rows.iter().map(time))?;
        }
        group.close()?;
        file.into_inner()
    };
    write().map_err(|error| error.to_string())
}

fn schema(dims: &BTreeSet<&str>, rounds: usize) -> parquet::errors::Result<TypePtr> {
    let leaf = |name: &str, physical: Physical| {
        let logical = (physical == Physical::BYTE_ARRAY).then_some(LogicalType::String);
        let builder = Type::primitive_type_builder(name, physical).with_repetition(Repetition::REQUIRED);
        builder.with_logical_type(logical).build().map(Arc::new)
    };
    let mut fields = Vec::new();
    for name in ["space", "candidate", "failure"] {
        fields.push(leaf(name, Physical::BYTE_ARRAY)?);
    }
    fields.push(leaf("by_rules", Physical::BOOLEAN)?);
    for name in dims {
        fields.push(leaf(&format!("shape_{name}"), Physical::FLOAT)?);
    }
    for name in COSTS {
        fields.push(leaf(name, Physical::DOUBLE)?);
    }
    for round in 0..rounds {
        fields.push(leaf(&format!("us_{round}"), Physical::FLOAT)?);
    }
    Ok(Arc::new(Type::group_type_builder("measurements").with_fields(fields).build()?))
}

fn properties(header: &Header) -> parquet::errors::Result<Arc<WriterProperties>> {
    let json = serde_json::to_string(header)
        .map_err(|error| parquet::errors::ParquetError::General(format!("the header: {error}")))?;
    let properties = WriterProperties::builder()
        .set_created_by("raglan".to_owned())
        .set_key_value_metadata(Some(vec![KeyValue::new(HEADER_KEY.to_owned(), json)]))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_max_row_group_row_count(None)
        .build();
    Ok(Arc::new(properties))
}

fn column<T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, Vec<u8>>,
    values: impl Iterator<Item = T::T>,
) -> parquet::errors::Result<()> {
    let values: Vec<T::T> = values.collect();
    let mut column =
        group.next_column()?.ok_or_else(|| parquet::errors::ParquetError::General("a column too many".to_owned()))?;
    column.typed::<T>().write_batch(&values, None, None)?;
    column.close()
}

pub(super) fn read(bytes: &[u8]) -> Result<Dataset, String> {
    if bytes.len() > MOST_BYTES {
        return Err(format!("{} bytes, at most {MOST_BYTES} are allowed", bytes.len()));
    }
    // The decoder of pages asserts some of what a file says.
    catch_unwind(AssertUnwindSafe(|| read_columns(Bytes::copy_from_slice(bytes))))
        .unwrap_or_else(|_| Err("a page cannot be decoded".to_owned()))
}

fn read_columns(bytes: Bytes) -> Result<Dataset, String> {
    let file = SerializedFileReader::new(bytes).map_err(|error| error.to_string())?;
    let metadata = file.metadata().file_metadata();
    let json = metadata
        .key_value_metadata()
        .and_then(|pairs| pairs.iter().find(|pair| pair.key == HEADER_KEY))
        .and_then(|pair| pair.value.as_deref())
        .ok_or_else(|| format!("its metadata has no {HEADER_KEY}"))?;
    let header: Header = serde_json::from_str(json).map_err(|error| format!("{HEADER_KEY}: {error}"))?;
    if let Some(fault) = header_fault(&header) {
        return Err(fault);
    }
    let columns = Columns::new(&file)?;
    let width = dims(&header).len() + COSTS.len() + MOST_ROUNDS + 4;
    if columns.rows.saturating_mul(width) > MOST_CELLS {
        return Err(format!("{} rows of {width} columns, at most {MOST_CELLS} values are allowed", columns.rows));
    }
    let candidates = columns.texts("candidate")?;
    let count = candidates.len();
    let spaces = columns.of_len(columns.texts("space")?, count)?;
    let failures = columns.of_len(columns.texts("failure")?, count)?;
    let by_rules = columns.of_len(columns.values::<BoolType>("by_rules")?, count)?;
    let names: Vec<String> = dims(&header).iter().map(|name| format!("shape_{name}")).collect();
    let numbers: Vec<Vec<f32>> =
        names.iter().map(|name| columns.of_len(columns.values::<FloatType>(name)?, count)).collect::<Result<_, _>>()?;
    let costs: Vec<Vec<f64>> = COSTS
        .iter()
        .map(|name| columns.of_len(columns.values::<DoubleType>(name)?, count))
        .collect::<Result<_, _>>()?;
    let mut rounds: Vec<Vec<f32>> = Vec::new();
    while rounds.len() < MOST_ROUNDS && columns.has(&format!("us_{}", rounds.len())) {
        let values = columns.values::<FloatType>(&format!("us_{}", rounds.len()))?;
        rounds.push(columns.of_len(values, count)?);
    }

    let places = places(&header);
    let mut known: HashMap<&str, Candidate> = HashMap::new();
    let mut rows = Vec::new();
    for at in 0..count {
        let space = text(&spaces[at])?;
        let wanted = places.get(space).ok_or_else(|| format!("row {at}: no space {:?}", shortened(space)))?;
        let shape: Vec<f32> = wanted.iter().map(|place| numbers[*place][at]).collect();
        if !shape.iter().all(|x| x.is_finite()) {
            return Err(format!("row {at}: the shape {shape:?} of {space} is not finite"));
        }
        let words = text(&candidates[at])?;
        let candidate = match known.get(words) {
            Some(candidate) => candidate.clone(),
            None => {
                let parsed: Candidate = words.parse().map_err(|error| format!("row {at}: {error}"))?;
                known.insert(words, parsed.clone());
                parsed
            }
        };
        let mut times_us: Vec<f32> = rounds.iter().map(|round| round[at]).collect();
        while times_us.last().is_some_and(|us| us.is_nan()) {
            times_us.pop();
        }
        let [bytes, flops, workgroups, workgroup_bytes] = [0, 1, 2, 3].map(|which| costs[which][at]);
        let cost = Cost { bytes, flops, workgroups, workgroup_bytes };
        let failure = Some(text(&failures[at])?).filter(|words| !words.is_empty()).map(str::to_owned);
        let by_rules = by_rules[at];
        rows.push(Row { space: space.to_owned(), shape, candidate, cost, times_us, failure, by_rules });
    }
    Ok(Dataset { header, rows })
}

fn text(bytes: &ByteArray) -> Result<&str, String> {
    std::str::from_utf8(bytes.data()).map_err(|error| error.to_string())
}

/// The columns of a file, by name.
struct Columns<'a> {
    file: &'a SerializedFileReader<Bytes>,
    names: HashMap<String, usize>,
    rows: usize,
}

impl<'a> Columns<'a> {
    fn new(file: &'a SerializedFileReader<Bytes>) -> Result<Columns<'a>, String> {
        let metadata = file.metadata();
        let rows = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or(usize::MAX);
        if rows > MOST_ROWS {
            return Err(format!("{rows} rows, at most {MOST_ROWS} are allowed"));
        }
        for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
            let places =
                [chunk.data_page_offset(), chunk.dictionary_page_offset().unwrap_or(0), chunk.compressed_size()];
            if places.iter().any(|place| *place < 0) {
                return Err(format!("{} lies before the file", chunk.column_path()));
            }
        }
        let schema = metadata.file_metadata().schema_descr();
        let names = schema.columns().iter().enumerate().map(|(at, leaf)| (leaf.path().string(), at)).collect();
        Ok(Columns { file, names, rows })
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    fn texts(&self, name: &str) -> Result<Vec<ByteArray>, String> {
        let values = self.values::<ByteArrayType>(name)?;
        let total = values.iter().try_fold(0_usize, |total, value| total.checked_add(value.len()));
        match total {
            Some(total) if total <= MOST_TEXT => Ok(values),
            _ => Err(format!("{name}: more than {MOST_TEXT} bytes of text")),
        }
    }

    /// The values of a column, decoded in batches, so that what is allocated follows what is decoded.
    fn values<T: DataType>(&self, name: &str) -> Result<Vec<T::T>, String> {
        let fault = |error: parquet::errors::ParquetError| format!("{name}: {error}");
        let at = *self.names.get(name).ok_or_else(|| format!("no column {name}"))?;
        let leaf = self.file.metadata().file_metadata().schema_descr().column(at);
        if leaf.physical_type() != T::get_physical_type() || leaf.max_rep_level() != 0 {
            return Err(format!("{name} is {}, {} is wanted", leaf.physical_type(), T::get_physical_type()));
        }
        let mut values = Vec::new();
        for group in 0..self.file.num_row_groups() {
            let group = self.file.get_row_group(group).map_err(fault)?;
            let mut reader = get_typed_column_reader::<T>(group.get_column_reader(at).map_err(fault)?);
            let mut levels = Vec::new();
            loop {
                levels.clear();
                let (records, read, _) =
                    reader.read_records(BATCH, Some(&mut levels), None, &mut values).map_err(fault)?;
                if read != records {
                    return Err(format!("{name}: a value is missing"));
                }
                if records == 0 {
                    break;
                }
                if values.len() > self.rows {
                    return Err(format!("{name}: more values than the {} rows", self.rows));
                }
            }
        }
        Ok(values)
    }

    fn of_len<T>(&self, values: Vec<T>, count: usize) -> Result<Vec<T>, String> {
        match values.len() == count {
            true => Ok(values),
            false => Err(format!("a column has {} values, another {count}", values.len())),
        }
    }
}
