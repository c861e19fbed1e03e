// Copies rows of keys and values to other slots of their arenas; the two places may overlap by any amount.
// A workgroup takes one move, one plane (a head of K or of V) and a group of columns. It walks the rows a tile in
// registers at a time: upwards where rows move down, downwards where they move up.

struct RowMove {
    from_slot: u32,  // the first slot to read
    to_slot: u32,    // the first slot to write
    count: u32,      // slots
}

struct MoveRowsParams {
    num_kv_heads: u32,
    slots: u32,        // of a head's plane
    row_words: u32,    // 16-byte words of a row
    group_words: u32,  // of them to a workgroup: a power of two, at most LANES
    first_move: u32,
}

var<immediate> params: MoveRowsParams;

@group(0) @binding(0) var<storage, read> moves: array<RowMove>;
@group(0) @binding(1) var<storage, read_write> k: array<vec4<u32>>;  // [num_kv_heads, slots, row_words]
@group(0) @binding(2) var<storage, read_write> v: array<vec4<u32>>;  // [num_kv_heads, slots, row_words]

const LANES: u32 = 256u;
const TILE: u32 = 4u; // rows to a lane

@compute @workgroup_size(LANES)
fn move_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let rows = moves[params.first_move + group.x];
    let is_value = group.y >= params.num_kv_heads;
    let plane = group.y % params.num_kv_heads * params.slots;
    let col = group.z * params.group_words + lane % params.group_words;
    let pass_rows = LANES / params.group_words;
    let tile_rows = pass_rows * TILE;
    let tiles = (rows.count + tile_rows - 1u) / tile_rows;
    let end = select(0u, rows.count, col < params.row_words); // a column past the row's end copies nothing
    var tile: array<vec4<u32>, TILE>;
    for (var i = 0u; i < tiles; i++) {
        let place = select(i, tiles - 1u - i, rows.to_slot > rows.from_slot);
        let first = place * tile_rows + lane / params.group_words;
        for (var r = 0u; r < TILE; r++) {
            let row = first + r * pass_rows;
            if row < end {
                let at = (plane + rows.from_slot + row) * params.row_words + col;
                if is_value {
                    tile[r] = v[at];
                } else {
                    tile[r] = k[at];
                }
            }
        }
        // Every row of the tile is read before one is written over it. One barrier a tile is enough: in this direction
        // what a tile writes is no row that a later tile reads.
        storageBarrier();
        for (var r = 0u; r < TILE; r++) {
            let row = first + r * pass_rows;
            if row < end {
                let at = (plane + rows.to_slot + row) * params.row_words + col;
                if is_value {
                    v[at] = tile[r];
                } else {
                    k[at] = tile[r];
                }
            }
        }
    }
}
