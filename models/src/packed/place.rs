//! Where the tensors of a quantised matrix lie: every name, shape, format and index is checked before anything is read by it.

use super::schemes::{Group, Method, Scheme};
use super::{Layout, Order, Packed, Scales, Zeros, word};
use crate::tensors::{Dtype, Entry, Tensors};
use crate::{Error, Format};

const SCALE_FORMATS: [Format; 3] = [Format::F16, Format::Bf16, Format::F32];

/// A matrix of integers, found and checked.
#[derive(Debug)]
pub(crate) struct PackedPlace {
    /// Of its quants.
    pub(crate) name: String,
    /// What its rows are made into.
    pub(crate) format: Format,
    /// Every tensor that it is made of.
    pub(crate) names: Vec<String>,
    layout: Layout,
    quants: Entry,
    scales: (Entry, Format, Order),
    zeros: Option<(Entry, ZeroKind)>,
    group_size: usize,
    group_of: Option<Entry>,
}

#[derive(Debug, Clone, Copy)]
enum ZeroKind {
    Awq,
    Gptq(u32),
    PackedRows,
    Bytes(Order),
}

/// Whole words of so many numbers.
const fn words(numbers: usize, bits: usize) -> usize {
    numbers / (32 / bits)
}

/// Looks for the tensors of one matrix.
struct Search<'a> {
    tensors: &'a Tensors,
    module: &'a str,
    names: Vec<String>,
}

impl PackedPlace {
    /// Whether the file has such a matrix under this name, which ends before `.weight`.
    pub(crate) fn is_there(tensors: &Tensors, module: &str, scheme: &Scheme) -> bool {
        let entry = |end: &str| tensors.entries.get(&format!("{module}.{end}"));
        match scheme.method {
            Method::Awq | Method::Gptq { .. } => entry("qweight").is_some(),
            Method::Packed => entry("weight_packed").is_some(),
            Method::Bytes => {
                entry("weight").is_some_and(|entry| matches!(&entry.dtype, Dtype::Other(name) if name == "I8"))
            }
        }
    }

    /// Finds a matrix `[rows, cols]`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Unsupported`] for a format, and [`Error::Malformed`] for
    /// numbers that disagree.
    pub(crate) fn find(
        tensors: &Tensors,
        module: &str,
        shape: [usize; 2],
        scheme: &Scheme,
    ) -> Result<PackedPlace, Error> {
        let [rows, cols] = shape;
        let mut search = Search { tensors, module, names: Vec::new() };
        let &Scheme { method, bits, group, zeros: has_zeros } = scheme;
        let (layout, end, quant_shape) = match method {
            Method::Awq => (Layout::Awq, "qweight", [cols, rows / 8]),
            Method::Gptq { .. } => (Layout::Gptq { bits }, "qweight", [words(cols, bits), rows]),
            Method::Packed => (Layout::Rows { bits }, "weight_packed", [rows, words(cols, bits)]),
            Method::Bytes => (Layout::Bytes, "weight", [rows, cols]),
        };
        let dtype = if method == Method::Bytes { "I8" } else { "I32" };
        let quants = search.needed(end, &[&quant_shape], dtype)?;
        let name = format!("{module}.{end}");
        let each = if matches!(method, Method::Awq | Method::Gptq { .. }) { 32 / bits } else { 1 };
        if !cols.is_multiple_of(32) || !rows.is_multiple_of(each) {
            let wanted = format_args!("a multiple of {each} rows, of 32 columns").to_string();
            let path = tensors.path(&quants);
            return Err(Error::unsupported(
                path,
                format_args!("tensor {name}: the shape"),
                format_args!("{rows} × {cols}"),
                wanted,
            ));
        }
        let group_size = match group {
            Group::Columns(size) => size.min(cols),
            Group::Row | Group::Tensor => cols,
        };
        let groups = cols.div_ceil(group_size);
        let transposed = matches!(method, Method::Awq | Method::Gptq { .. });
        let scale_end = if transposed { "scales" } else { "weight_scale" };
        let order = match group {
            _ if transposed => Order::Groups,
            Group::Tensor => Order::One,
            _ => Order::Rows,
        };
        let shapes: &[&[usize]] = match (order, group) {
            (Order::Groups, _) => &[&[groups, rows]],
            (Order::One, _) => &[&[1], &[], &[1, 1]],
            (Order::Rows, Group::Row) => &[&[rows, 1], &[rows]],
            (Order::Rows, _) => &[&[rows, groups]],
        };
        let (scales, scale_format) = search.scales(scale_end, shapes)?;
        let zeros = search.zeros(method, bits, [rows, groups], (order, shapes), has_zeros)?;
        if method == Method::Packed {
            search.check_shape(shape)?;
        }
        let index_end = if transposed { "g_idx" } else { "weight_g_idx" };
        let group_of =
            search.groups(index_end, cols, group_size, matches!(method, Method::Gptq { .. } | Method::Packed))?;
        let blocks = |format: Format| {
            let values = format.block().0;
            group_of.is_none() && cols.is_multiple_of(values) && (groups == 1 || group_size.is_multiple_of(values))
        };
        let [small, large] = if bits == 4 { [Format::I4G32, Format::I4G128] } else { [Format::I8G32, Format::I8G128] };
        let float = if scale_format == Format::Bf16 { Format::Bf16 } else { Format::F16 };
        let format = match [large, small].into_iter().find(|format| blocks(*format)).unwrap_or(float) {
            // ggml's blocks of the same say it in two bytes less: their zero is the middle, their scale of f16.
            Format::I4G32 if zeros.is_none() && scale_format == Format::F16 => Format::Q4_0,
            Format::I8G32 if zeros.is_none() && scale_format == Format::F16 => Format::Q8_0,
            format => format,
        };
        let scales = (scales, scale_format, order);
        Ok(PackedPlace { name, format, names: search.names, layout, quants, scales, zeros, group_size, group_of })
    }

    /// Its parts in the mapped files.
    pub(crate) fn packed<'a>(&'a self, tensors: &'a Tensors) -> Packed<'a> {
        let (scales, format, order) = &self.scales;
        let zeros = match &self.zeros {
            None => Zeros::Middle,
            Some((entry, kind)) => {
                let bytes = tensors.bytes(entry);
                match *kind {
                    ZeroKind::Awq => Zeros::Awq(bytes),
                    ZeroKind::Gptq(added) => Zeros::Gptq(bytes, added),
                    ZeroKind::PackedRows => Zeros::PackedRows(bytes),
                    ZeroKind::Bytes(order) => Zeros::Bytes(bytes, order),
                }
            }
        };
        Packed {
            layout: self.layout,
            quants: tensors.bytes(&self.quants),
            scales: Scales { bytes: tensors.bytes(scales), format: *format, order: *order },
            zeros,
            group_size: self.group_size,
            group_of: self.group_of.as_ref().map(|entry| tensors.bytes(entry)),
        }
    }

    /// Bits of a quant.
    pub(crate) fn bits(&self) -> usize {
        self.layout.bits()
    }

    /// Looks at the numbers of a matrix `[rows, cols]` that decide over many: scales that are not finite, zero points that no
    /// block can have.
    ///
    /// # Errors
    /// [`Error::NotFinite`]; [`Error::Malformed`] for a zero point.
    pub(crate) fn check(&self, tensors: &Tensors, [rows, cols]: [usize; 2]) -> Result<(), Error> {
        let packed = self.packed(tensors);
        let name_of = |of: &Entry| {
            let named = self.names.iter().find(|name| tensors.entries.get(*name).is_some_and(|met| met.is(of)));
            named.cloned().unwrap_or_default()
        };
        if let Some((index, met)) = packed.first_not_finite() {
            let entry = &self.scales.0;
            return Err(Error::NotFinite { path: tensors.path(entry).into(), name: name_of(entry), index, met });
        }
        match (&self.zeros, packed.first_bad_zero([rows, cols])) {
            (Some((entry, _)), Some((row, group, met))) => {
                let field = format!("tensor {}: the zero point of output {row}, group {group}", name_of(entry));
                let most = (1 << self.layout.bits()) - 1;
                // A signed byte below the range wrapped round.
                let met = met as i32;
                Err(Error::malformed(tensors.path(entry), field, met, format_args!("a number from 0 to {most}")))
            }
            _ => Ok(()),
        }
    }
}

impl Search<'_> {
    /// A tensor of one of `shapes` whose dtype is named `dtype`.
    fn optional(&mut self, end: &str, shapes: &[&[usize]], dtypes: &[&str]) -> Result<Option<Entry>, Error> {
        let name = format!("{}.{end}", self.module);
        let Some(entry) = self.tensors.entries.get(&name) else { return Ok(None) };
        let met = match &entry.dtype {
            Dtype::Known(format) => format.name(),
            Dtype::Other(name) => name,
        };
        let path = self.tensors.path(entry);
        if !dtypes.contains(&met) {
            return Err(Error::unsupported(path, format_args!("the format of tensor {name}"), met, dtypes.join(", ")));
        }
        if !shapes.contains(&entry.shape.as_slice()) {
            return Err(Error::Shape { path: path.into(), name, met: entry.shape.clone(), wanted: shapes[0].into() });
        }
        self.names.push(name);
        Ok(Some(entry.clone()))
    }

    fn needed(&mut self, end: &str, shapes: &[&[usize]], dtype: &str) -> Result<Entry, Error> {
        self.optional(end, shapes, &[dtype])?.ok_or_else(|| self.missing(end, shapes[0]))
    }

    fn missing(&self, end: &str, wanted: &[usize]) -> Error {
        let path = self.tensors.files.first().map_or_else(Default::default, |file| file.path().to_owned());
        Error::MissingTensor { path, name: format!("{}.{end}", self.module), wanted: wanted.into() }
    }

    fn scales(&mut self, end: &str, shapes: &[&[usize]]) -> Result<(Entry, Format), Error> {
        let entry = self.optional(end, shapes, &SCALE_FORMATS.map(Format::name))?;
        match entry {
            Some(Entry { dtype: Dtype::Known(format), .. }) => {
                Ok((entry.ok_or_else(|| self.missing(end, shapes[0]))?, format))
            }
            _ => Err(self.missing(end, shapes[0])),
        }
    }

    fn zeros(
        &mut self,
        method: Method,
        bits: usize,
        [rows, groups]: [usize; 2],
        (order, shapes): (Order, &[&[usize]]),
        needed: bool,
    ) -> Result<Option<(Entry, ZeroKind)>, Error> {
        let packed_rows = rows.div_ceil(32 / bits);
        let (end, shape) = match method {
            Method::Awq | Method::Gptq { .. } => ("qzeros", [groups, words(rows, bits)]),
            Method::Packed | Method::Bytes => ("weight_zero_point", [packed_rows, groups]),
        };
        let found = match method {
            Method::Awq => self.optional(end, &[&shape], &["I32"])?.map(|entry| (entry, ZeroKind::Awq)),
            Method::Gptq { added } => {
                self.optional(end, &[&shape], &["I32"])?.map(|entry| (entry, ZeroKind::Gptq(added)))
            }
            Method::Packed if order != Order::One && self.is(end, "I32") => {
                self.optional(end, &[&shape], &["I32"])?.map(|entry| (entry, ZeroKind::PackedRows))
            }
            // Bytes are as many as scales, and lie as those.
            _ => self.optional(end, shapes, &["I8"])?.map(|entry| (entry, ZeroKind::Bytes(order))),
        };
        match found {
            None if needed => Err(self.missing(end, &shape)),
            found => Ok(found),
        }
    }

    fn is(&self, end: &str, dtype: &str) -> bool {
        let entry = self.tensors.entries.get(&format!("{}.{end}", self.module));
        entry.is_some_and(|entry| matches!(&entry.dtype, Dtype::Other(name) if name == dtype))
    }

    /// `weight_shape` says what the shape of the packed words leaves open.
    fn check_shape(&mut self, shape: [usize; 2]) -> Result<(), Error> {
        let Some(entry) = self.optional("weight_shape", &[&[2]], &["I64", "I32"])? else { return Ok(()) };
        let bytes = self.tensors.bytes(&entry);
        let size = bytes.len() / 2;
        let number = |at: usize| match size {
            8 => bytes[8 * at..].first_chunk().map_or(-1, |b| i64::from_le_bytes(*b)),
            _ => i64::from(word(bytes, at) as i32),
        };
        let met = [number(0), number(1)];
        if met == shape.map(|size| i64::try_from(size).unwrap_or(-1)) {
            return Ok(());
        }
        let field = format_args!("tensor {}.weight_shape", self.module).to_string();
        Err(Error::malformed(self.tensors.path(&entry), field, format_args!("{met:?}"), format_args!("{shape:?}")))
    }

    /// The groups of columns; `None` where they are in order.
    fn groups(&mut self, end: &str, cols: usize, group_size: usize, may_be: bool) -> Result<Option<Entry>, Error> {
        if !may_be {
            return Ok(None);
        }
        let Some(entry) = self.optional(end, &[&[cols]], &["I32"])? else { return Ok(None) };
        let groups = cols.div_ceil(group_size);
        let bytes = self.tensors.bytes(&entry);
        let mut in_order = true;
        for col in 0..cols {
            let group = word(bytes, col);
            if group as usize >= groups {
                let field = format!("tensor {}.{end}: index {col}", self.module);
                let wanted = format_args!("a group from 0 to {}", groups - 1);
                return Err(Error::malformed(self.tensors.path(&entry), field, group as i32, wanted));
            }
            in_order &= group as usize == col / group_size;
        }
        Ok((!in_order).then_some(entry))
    }
}
