// Copies rows of keys and values to other slots of their arenas; the two places may overlap by any amount.
// A workgroup takes one move, one plane (a head of K, of V or of their scales) and a group of columns. It walks the rows a tile
// in registers at a time: upwards where rows move down, downwards where they move up.

struct RowMove {
    from_slot: u32,  // the first slot to read
    to_slot: u32,    // the first slot to write
    count: u32,      // slots
}

struct MoveRowsParams {
    num_kv_heads: u32,
    slots: u32,        // of a head's plane
    k_words: u32,      // 16-byte words of a row of K
    k_group: u32,      // of them to a workgroup: a power of two, at most LANES
    v_words: u32,      // 16-byte words of a row of V
    v_group: u32,      // of them to a workgroup
    scale_words: u32,  // 4-byte words of a row of scales: 0, 1 or 2; without any, there are no planes of scales
    first_move: u32,
}

var<immediate> params: MoveRowsParams;

@group(0) @binding(0) var<storage, read> moves: array<RowMove>;
@group(0) @binding(1) var<storage, read_write> k: array<vec4<u32>>;  // [num_kv_heads, slots, k_words]
@group(0) @binding(2) var<storage, read_write> v: array<vec4<u32>>;  // [num_kv_heads, slots, v_words]
@group(0) @binding(3) var<storage, read_write> scales: array<u32>;   // [num_kv_heads, slots, scale_words]

const LANES: u32 = 256u;
const TILE: u32 = 4u; // rows to a lane
const KEYS: u32 = 0u;
const VALUES: u32 = 1u;

@compute @workgroup_size(LANES)
fn move_rows(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let rows = moves[params.first_move + group.x];
    let kind = group.y / params.num_kv_heads;
    let plane = group.y % params.num_kv_heads * params.slots;
    var row_words = params.scale_words;
    var group_words = params.scale_words;
    if kind == KEYS {
        row_words = params.k_words;
        group_words = params.k_group;
    } else if kind == VALUES {
        row_words = params.v_words;
        group_words = params.v_group;
    }
    let col = group.z * group_words + lane % group_words;
    let pass_rows = LANES / group_words;
    let tile_rows = pass_rows * TILE;
    let tiles = (rows.count + tile_rows - 1u) / tile_rows;
    let end = select(0u, rows.count, col < row_words); // a column past the row's end copies nothing
    var tile: array<vec4<u32>, TILE>;
    for (var i = 0u; i < tiles; i++) {
        let place = select(i, tiles - 1u - i, rows.to_slot > rows.from_slot);
        let first = place * tile_rows + lane / group_words;
        for (var r = 0u; r < TILE; r++) {
            let row = first + r * pass_rows;
            if row < end {
                let at = (plane + rows.from_slot + row) * row_words + col;
                if kind == KEYS {
                    tile[r] = k[at];
                } else if kind == VALUES {
                    tile[r] = v[at];
                } else {
                    tile[r].x = scales[at];
                }
            }
        }
        // Every row of the tile is read before one is written over it. One barrier a tile is enough: in this direction
        // what a tile writes is no row that a later tile reads.
        storageBarrier();
        for (var r = 0u; r < TILE; r++) {
            let row = first + r * pass_rows;
            if row < end {
                let at = (plane + rows.to_slot + row) * row_words + col;
                if kind == KEYS {
                    k[at] = tile[r];
                } else if kind == VALUES {
                    v[at] = tile[r];
                } else {
                    scales[at] = tile[r].x;
                }
            }
        }
    }
}
