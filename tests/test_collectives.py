"""Reading of compiled programs, against programs written out and counted by hand."""

import pytest

from nkjax import collectives
from nkjax.collectives import Collective

# As the TPU compiler writes them, shortened: a loop of 3 with a gather in pieces (one channel, one
# chain; one piece stands outside), a fusion that adds up and keeps its part, and a loop of 4 in it.
PROGRAM = """HloModule jit_step, is_scheduled=true, num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%gather_start (p: bf16[64,8]) -> bf16[64,64] {
  ROOT %all-gather.1 = bf16[64,64]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=9, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={1}, frontend_attributes={chain_id="5"}
}

%gather_done (p: bf16[64,8]) -> bf16[64,64] {
  ROOT %all-gather.2 = bf16[64,64]{1,0:T(8,128)(2,1)S(1)} all-gather(%p), channel_id=9, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={1}, frontend_attributes={chain_id="5"}
}

%all-reduce-scatter.6 (i: bf16[64,32], j: bf16[4]) -> (bf16[16,32], bf16[1]) {
  %all-reduce.7 = (bf16[64,32]{1,0:T(8,128)}, /*index=1*/bf16[4]{0}) all-reduce(%i, %j), channel_id=1, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  ROOT %kept = (bf16[16,32]{1,0}, bf16[1]{0}) fusion(%all-reduce.7), kind=kLoop, calls=%keep
}

%inner (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %all-reduce.8 = f32[4]{0} all-reduce(%v), channel_id=3, replica_groups=[4,2]<=[8], to_apply=%add
}

%inner_end (s: (s32[], f32[4])) -> pred[] {
  %four = s32[]{:T(128)} constant(4)
  ROOT %lt.2 = pred[] compare(%i, %four), direction=LT
}

%body (s: (s32[], f32[4])) -> (s32[], f32[4]) {
  %f = bf16[64,64]{1,0} fusion(%w), kind=kCustom, calls=%gather_start
  %g = bf16[64,64]{1,0} fusion(%w), kind=kCustom, calls=%gather_done
  %r = (bf16[16,32]{1,0}, bf16[1]{0}) fusion(%x, %y), kind=kCustom, calls=%all-reduce-scatter.6
  %w2 = (s32[], f32[4]{0}) while(%t), condition=%inner_end, body=%inner
}

%end (s: (s32[], f32[4])) -> pred[] {
  %three = s32[]{:T(128)} constant(3)
  ROOT %lt = pred[] compare(%i, %three), direction=LT
}

ENTRY %main (p0: f32[4]) -> f32[4] {
  %w = (s32[], f32[4]{0}) while(%t), condition=%end, body=%body, metadata={op_name="jit(step)/while"}
  %ahead = bf16[64,64]{1,0} all-gather(%p), channel_id=9, replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={1}, frontend_attributes={chain_id="5"}
  %permute = (bf16[8,32]{1,0}, bf16[8,32]{1,0}, u32[]{:S(2)}, u32[]) collective-permute-start(%b), channel_id=63, source_target_pairs={{0,1},{1,0}}
  %permute.done = bf16[8,32]{1,0} collective-permute-done(%permute)
  %one = f32[2,768]{1,0} all-gather(%x), channel_id=20, replica_groups={}, dimensions={0}
  %other = f32[2,768]{1,0} all-gather(%y), channel_id=20, replica_groups={}, dimensions={0}
  %async = (f32[4,8]{1,0}, f32[32,8]{1,0}) all-gather-start(%z), channel_id=2, replica_groups={{0,1,2,3,4,5,6,7}}
  %async.done = f32[32,8]{1,0} all-gather-done(%async)
  %scatter = f32[4]{0} reduce-scatter(%z), channel_id=4, replica_groups=[1,8]<=[8], to_apply=%add
}
"""  # noqa: E501


def test_every_collective_is_counted_as_often_as_it_runs():
    found = collectives.read(PROGRAM)
    assert sorted(found, key=lambda one: (one.kind, one.size, one.times)) == [
        Collective("all-gather", 1, 8, 32 * 8 * 4, 32 * 8 * 4),
        Collective("all-gather", 1, 8, 2 * 768 * 4, 2 * 768 * 4),
        Collective("all-gather", 1, 8, 2 * 768 * 4, 2 * 768 * 4),
        Collective("all-gather", 3, 4, 64 * 64 * 2, 64 * 64 * 2),
        Collective("all-reduce", 3 * 4, 2, 4 * 4, 4 * 4),
        Collective("collective-permute", 1, 8, 8 * 32 * 2, 8 * 32 * 2),
        Collective("reduce-scatter", 1, 8, 8 * 4 * 4, 8 * 4 * 4),
        Collective("reduce-scatter", 3, 4, (64 * 32 + 4) * 2, 64 * 32 * 2),
    ]


@pytest.mark.parametrize(("kind", "sent"), [
    # Of 800 bytes on 4 chips each brings home what the 3 others have; a sum goes round twice.
    ("all-gather", 600), ("reduce-scatter", 600), ("all-to-all", 600), ("all-reduce", 1200),
    ("collective-permute", 800),
])  # fmt: skip
def test_bytes_that_a_chip_sends(kind, sent):
    assert Collective(kind, 10, 4, 800, 800).sent == 10 * sent


def test_a_count_that_the_compiler_knows_is_taken():
    known = 'body=%body, backend_config={"known_trip_count":{"n":"7"}}, metadata'
    found = collectives.read(PROGRAM.replace("body=%body, metadata", known))
    assert {one.times for one in found} == {1, 7, 28}


def test_a_loop_of_unknown_length_is_refused():
    with pytest.raises(ValueError, match="does not say how often it runs: %w = "):
        collectives.read(PROGRAM.replace("constant(3)", "parameter(1)"))
