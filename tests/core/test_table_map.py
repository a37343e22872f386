"""The learned map of the table and acting by it: labels, values and steps against hand-computed ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from safe_policy_core.errors import ConfigurationError
from safe_policy_core.methods.fosp import FospLearner
from safe_policy_core.methods.fosp.policy import FospPolicy
from safe_policy_core.methods.fosp.reach_avoid import (
    ReachAvoid,
    ReachAvoidConfig,
    best_neighbours,
    reach_avoid_values,
    violation_probabilities,
    ways,
)
from safe_policy_core.vision import TableMap, TableMapConfig, ToolViewConfig
from tests.core.fosp_rig import tiny_config
from tests.core.test_vision import ABOVE, SIDE, SPECS, picture

torch.set_num_threads(1)
LOW, HIGH, CELLS, STEP = (0.0, 0.0), (1.0, 1.0), 20, 0.05
AREA = TableMapConfig(cells=25, low=(0.0, -0.5), high=(1.0, 0.5), height=0.0, depth=8)


def solved(contact: np.ndarray, arrival: np.ndarray, **changes: float) -> ReachAvoid:
    return ReachAvoid(contact, arrival, LOW, HIGH, STEP, 0.9, ReachAvoidConfig(**changes))


def corridor() -> tuple[np.ndarray, np.ndarray]:
    """A target in the upper middle and a wall below it that is open on the right."""
    contact, arrival = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    arrival[17, 9:11] = 1.0
    contact[10, :15] = contact[11, :15] = 1.0
    return contact, arrival


def test_value_of_a_row_of_cells_is_the_hand_computed_one() -> None:
    contact, arrival = np.zeros((1, 4)), np.zeros((1, 4))
    arrival[0, 3], contact[0, 1], contact[0, 3] = 0.5, 0.2, 0.1
    values = reach_avoid_values(contact, arrival, ways(contact, (0.1, 1.0), 0.1, 0.9, 2.0), 2.0)[0]
    # Standing at the target goes on from its neighbour: v3 = 0.81 (0.5 + 0.5 * 0.9 * v2), v2 = 0.9 * v3.
    end = 0.81 * 0.5 / (1 - 0.81 * 0.5 * 0.9 * 0.9)
    assert values == pytest.approx([0.9 * 0.64 * 0.81 * end, 0.64 * 0.81 * end, 0.9 * end, end], abs=1e-3)


def test_probability_of_a_contact_on_the_way_is_the_hand_computed_one() -> None:
    contact, arrival = np.array([[0.3, 0.2, 0.0, 0.1]]), np.array([[0.0, 0.0, 0.0, 0.5]])
    values = reach_avoid_values(contact, arrival, ways(contact, (0.1, 1.0), 0.1, 0.9, 2.0), 2.0)
    following = best_neighbours(values, ways(contact, (0.1, 1.0), 0.1, 0.9, 2.0))
    assert following.tolist() == [1, 2, 3, 2]
    found = violation_probabilities(following, contact, arrival)[0]
    # At the end: q3 = 0.9 (0.5 + 0.5 q2) and q2 = q3, so q3 = 0.45 / 0.55; then q1 = 0.8 q2 and q0 = 0.7 q1.
    end = 0.45 / 0.55
    assert found == pytest.approx([1 - 0.7 * 0.8 * end, 1 - 0.8 * end, 1 - end, 1 - end], abs=1e-3)


def test_a_contact_counts_as_many_as_the_risk_says() -> None:
    contact, arrival = np.full((1, 2), 0.1), np.array([[0.0, 1.0]])
    values = reach_avoid_values(contact, arrival, ways(contact, (0.1, 1.0), 0.1, 1.0, 3.0), 3.0)[0]
    assert values == pytest.approx([0.9**6, 0.9**3], abs=1e-6)


def test_a_way_between_two_cells_loses_what_they_are_dangerous() -> None:
    contact, arrival = np.zeros((2, 2)), np.zeros((2, 2))
    contact[0, 1], arrival[1, 1] = 0.4, 1.0
    # Slantwise: sqrt(2) steps, past 0.4 and 0; by the upper left cell: 2 steps past nothing.
    values = reach_avoid_values(contact, arrival, ways(contact, (0.1, 0.1), 0.1, 0.9, 1.0), 1.0)
    assert values[0, 0] == pytest.approx(max(0.9**2**0.5 * 0.8, 0.9**2), abs=1e-5) == pytest.approx(0.81)
    contact, arrival = np.zeros((2, 3)), np.zeros((2, 3))
    contact[0, 1] = contact[1, 0] = 0.2
    contact[1, 1], arrival[1, 2] = 0.1, 1.0
    values = reach_avoid_values(contact, arrival, ways(contact, (0.1, 0.1), 0.1, 0.9, 1.0), 1.0)
    assert values[0, 0] == pytest.approx(0.9**5**0.5 * (1 - (0.2 + 0.1) / 2), abs=1e-5), "two right and one up"


def test_the_way_leads_around_a_wall() -> None:
    plan, tool, places = solved(*corridor()), np.array([0.45, 0.3]), []
    for _ in range(60):
        places.append(tool)
        step = plan.step(tool, np.array([0.0, 1.0]))
        tool = tool + STEP * (np.array([0.0, 1.0]) if step is None else step)
        if plan._at(plan.arrival, tool[None])[0] > 0.5:
            break
    path = np.array(places)
    assert plan._at(plan.arrival, tool[None])[0] > 0.5, "it arrives"
    assert plan._at(plan.contact, path).max() < 0.5, "and touches nothing, though straight on is a wall"
    assert path[:, 0].max() > 0.72


def test_the_actors_own_step_is_kept_where_it_is_nearly_as_good() -> None:
    tool, contact, arrival = np.array([0.5, 0.6]), *corridor()
    assert solved(contact, arrival, deference=0.05).step(tool, np.array([0.0, 1.0])) is None
    assert solved(contact, arrival, deference=0.05).step(tool, np.array([0.0, -1.0])) is not None


def test_the_tool_rests_where_no_way_is_seen() -> None:
    contact, arrival = corridor()
    contact[10:12] = 1.0
    assert solved(contact, arrival).step(np.array([0.45, 0.3]), np.array([0.0, 1.0])).tolist() == [0.0, 0.0]


def test_a_place_where_it_did_not_arrive_is_no_target() -> None:
    contact, arrival = corridor()
    arrival[2, 3] = 0.9  # a false one beside the start
    plan, tool = solved(contact, arrival, refuted=0.06), np.array([0.175, 0.125])
    assert not plan.step(tool, np.ones(2)).any(), "waiting there looks best"
    before = plan.values[2, 3]
    plan.stand_at(tool)
    assert plan.values[2, 3] < before and plan.step(tool, np.zeros(2)).any()
    kept = plan.values
    plan.stand_at(np.array([0.9, 0.1]))
    assert plan.values is kept, "nothing was believed of that place"


def test_a_map_that_was_too_generous_at_the_rim_is_so_all_around() -> None:
    contact, arrival = np.zeros((CELLS, CELLS)), np.zeros((CELLS, CELLS))
    arrival[8:13, 8:13] = 0.6
    arrival[10, 10] = 0.999
    plan = solved(contact, arrival, refuted=0.03)
    plan.stand_at(np.array([0.425, 0.525]))  # the middle of the left side
    assert plan.arrival[10, 8] < 1e-3 and plan.arrival[12, 12] == pytest.approx(0.05, abs=1e-3)
    assert plan.arrival[10, 10] > 0.9, "further in is where it is"
    plan.stand_at(np.array([0.525, 0.525]))
    assert plan.arrival.max() < 0.06


@pytest.mark.parametrize("changes", [{"risk": 0.5}, {"deference": 1.0}, {"deference": -0.1}])
def test_bad_settings_are_named(changes: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=rf"reach_avoid\.{next(iter(changes))}"):
        ReachAvoidConfig(**changes)


@pytest.mark.parametrize("changes", [{"cells": 1}, {"cells": -3}, {"cells": 9, "low": (1.0, 0.0)}])
def test_a_bad_area_is_named(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=r"table_map\.(cells|low)"):
        TableMapConfig(**changes)


def table(seed: int = 0) -> TableMap:
    torch.manual_seed(seed)
    return TableMap(SPECS, AREA, ABOVE.row)


def test_what_is_seen_lies_in_its_cell() -> None:
    above = table().seen_from_above(torch.from_numpy(picture(0.3, 0.2)[None]))[0, 0].numpy() + 0.5
    y, x = np.unravel_index(above.argmax(), above.shape)
    assert (x + 0.5) / 25 == pytest.approx(0.3, abs=0.05) and (y + 0.5) / 25 - 0.5 == pytest.approx(0.2, abs=0.05)


def test_places_read_the_cells_around_them() -> None:
    logits = torch.arange(25.0).expand(1, 2, 25, 25)  # grows along x
    read = table().at(logits, torch.tensor([[[0.02, 0.0], [0.04, 0.3], [2.0, 0.0]]]))
    assert read[0, 0].tolist() == pytest.approx([0.0, 0.5, 24.0], abs=1e-4)


def batch(count: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Tools at random places, 16 a scene with one obstacle, and cost where they are within 8 cm of it."""
    obstacles = rng.uniform((0.15, -0.35), (0.85, 0.35), (count, 2))
    tools = rng.uniform((0.0, -0.5), (1.0, 0.5), (count, 16, 2))
    tools[:, ::2] = obstacles[:, None] + rng.normal(size=(count, 8, 2)) * 0.1
    scenes = np.stack([picture(*place) for place in obstacles])
    pose = np.zeros((count, 16, 6), np.float32)
    pose[..., :2] = tools
    cost = (np.linalg.norm(tools - obstacles[:, None], axis=-1) < 0.08).astype(np.float32)
    first = np.zeros((count, 16), bool)
    return {"scene": torch.from_numpy(np.repeat(scenes[:, None], 16, 1)), "pose": torch.from_numpy(pose),
            "cost": torch.from_numpy(cost), "reward": torch.zeros(count, 16), "is_first": torch.from_numpy(first),
            "undisturbed": torch.ones(count, 16, dtype=torch.bool)}


def test_it_learns_where_contacts_are() -> None:
    one, rng = table(), np.random.default_rng(0)
    optimiser = torch.optim.Adam(one.parameters(), 3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        one.loss(batch(8, rng))[0].backward()
        optimiser.step()
    before = one.slow[0].weight.clone()
    one.update_slow()
    assert torch.equal(one.slow[0].weight, before.lerp(one.network[0].weight, AREA.slow_rate))
    one.slow.load_state_dict(one.network.state_dict())
    test = batch(40, np.random.default_rng(1))
    with torch.no_grad():
        logits = one.at(one(test["scene"][:, 0]), test["pose"][..., :2])[:, 0]
    right = ((logits > 0) == (test["cost"] > 0)).float()
    assert right[test["cost"] > 0].mean() > 0.8 and right[test["cost"] == 0].mean() > 0.9


def test_only_rows_of_the_first_episode_before_a_contact_count() -> None:
    one, rng = table(), np.random.default_rng(0)
    given = batch(2, rng)
    given["is_first"][0, 9] = True
    given["undisturbed"][1, 5:] = False
    loss = one.loss(given)[0]
    given["cost"][0, 9:] = 1 - given["cost"][0, 9:]
    given["reward"][1, 5:] = 1.0
    assert one.loss(given)[0] == loss
    given["cost"][0, 8] = 1 - given["cost"][0, 8]
    assert one.loss(given)[0] != loss


def test_a_tool_that_had_gone_on_would_have_touched_the_target_too() -> None:
    one, given = table(), batch(1, np.random.default_rng(0))
    given["cost"][:], given["reward"][0, 5] = 0.0, 1.0
    given["pose"][0, 4, :2], given["pose"][0, 5, :2] = torch.tensor([0.3, 0.1]), torch.tensor([0.34, 0.07])
    metrics = one.loss(given)[1]
    with torch.no_grad():
        places = torch.tensor([[0.34, 0.07]]) + torch.tensor([[0.007], [0.014], [0.021]]) * torch.tensor([[0.8, -0.6]])
        contact, arrival = one.at(one(given["scene"][:, 0]), places[None])[0]
    expected = (torch.nn.functional.softplus(-arrival) + torch.nn.functional.softplus(contact)).mean() / 15
    assert metrics["table_map/within"] == pytest.approx(expected.item(), rel=1e-4), "of the 15 steps one is it"


def test_places_where_an_added_obstacle_is_touched_are_contacts() -> None:
    one, given = table(), batch(2, np.random.default_rng(0))
    places = torch.full((2, 16, 2), torch.nan)
    plain = one.loss(given)[0]
    assert one.loss(given | {"contact_place": places})[0] == plain
    places[0, 3] = torch.tensor([0.4, 0.1])
    loss, metrics = one.loss(given | {"contact_place": places})
    with torch.no_grad():
        logit = one.at(one(given["scene"][:, 0]), places[:, 3:4].nan_to_num())[0, 0, 0]
    assert metrics["table_map/added_contact"] == pytest.approx(-torch.nn.functional.logsigmoid(logit).item(), rel=1e-5)
    assert loss.item() == pytest.approx(plain.item() + 0.1 * metrics["table_map/added_contact"].item(), rel=1e-5)


def test_a_picture_is_needed() -> None:
    vector = type(SPECS)({"pose": SPECS.observation["pose"]}, SPECS.action, SPECS.scales)
    with pytest.raises(ConfigurationError, match="image"):
        TableMap(vector, AREA, ABOVE.row)


def test_pictures_have_the_side_that_the_specs_say() -> None:
    assert table()(torch.zeros(3, SIDE, SIDE, 3, dtype=torch.uint8)).shape == (3, 2, 25, 25)


def acting(**changes: float) -> tuple[FospPolicy, dict[str, np.ndarray]]:
    """An untrained policy with a map, and what it sees with the tool below the wall of `corridor`."""
    config = tiny_config(tool_view=ToolViewConfig(projection=ABOVE.row, height=0.0), table_map=AREA,
                         reach_avoid=ReachAvoidConfig(**changes))
    policy = FospLearner(SPECS, config).policy()
    policy.reset(0)
    pose = np.array([0.45, 0.3, 0, 0, 0, 0], np.float32)
    return policy, {"image": picture(0.5, 0.0), "pose": pose}


def test_the_policy_steps_over_the_table_as_the_map_says() -> None:
    policy, observation = acting()
    own = policy.act(observation, deterministic=True)
    policy.reset(0)
    contact, arrival = corridor()
    policy.solved = plan = ReachAvoid(contact, arrival, LOW, HIGH, STEP, 0.9, ReachAvoidConfig())
    policy._scene = torch.from_numpy(observation["image"])[None]  # the episode has begun
    decision = policy.act(observation, deterministic=True)
    assert decision.chosen_policy == "map"
    assert decision.violation_probability == plan.violation_probability(np.array([0.45, 0.3], np.float32)) < 0.1
    policy.observe_executed(np.ones(SPECS.action.shape, np.float32))
    plan.violations[:] = np.arange(CELLS) / CELLS  # grows along x
    ahead = np.array([0.45, 0.3]) + policy._model.tool_view.step_length
    assert policy.act(observation, deterministic=True).violation_probability == pytest.approx(
        plan.violation_probability(ahead), abs=1e-5), "where the arm is going counts, too"
    assert decision.action[:2] == pytest.approx(plan.step(np.array([0.45, 0.3], np.float32), own.action[:2]))
    assert np.array_equal(decision.action[2:], own.action[2:]), "height and rotation are the actor's mode"


def test_height_and_rotation_stay_the_offline_actors_in_fine_tuning() -> None:
    config = tiny_config(tool_view=ToolViewConfig(projection=ABOVE.row, height=0.0), table_map=AREA, new_actor="fresh")
    one = FospLearner(SPECS, config)
    observation = {"image": picture(0.5, 0.0), "pose": np.array([0.45, 0.3, 0, 0, 0, 0], np.float32)}
    before = one.policy()
    before.reset(0)
    offline = before.act(observation, deterministic=True)
    one.start_fine_tuning()
    policy = one.policy()
    policy.reset(0)
    online = policy.act(observation, deterministic=True)
    with torch.no_grad():
        other = one.model.actor(policy._state.features).mode[0].numpy()
    assert np.abs(other[2:] - offline.action[2:]).max() > 0.01, "the online actor would hold the tool otherwise"
    assert offline.chosen_policy == online.chosen_policy == "map"
    assert online.action == pytest.approx(offline.action, abs=1e-6)


def test_steps_are_planned_from_where_the_command_is() -> None:
    policy, observation = acting()
    policy.act(observation, deterministic=True)
    contact, arrival = corridor()
    policy.solved = plan = ReachAvoid(contact, arrival, LOW, HIGH, STEP, 0.9, ReachAvoidConfig())
    length, tool = policy._model.tool_view.step_length, observation["pose"][:2].astype(float)
    for count in (1, 2):
        policy.observe_executed(np.array([0.5, -1.0, *[0.0] * (SPECS.action.shape[0] - 2)], np.float32))
        decision = policy.act(observation, deterministic=True)
        lead = np.clip(count * length * np.array([0.5, -1.0]), -0.03, 0.03)
        assert decision.action[:2] == pytest.approx(plan.step(tool + lead, np.zeros(2)), abs=1e-5), "the arm is behind"
    policy.reset(0)
    assert policy._commanded is None


def test_every_episode_has_its_own_map() -> None:
    policy, observation = acting(deference=0.99)
    assert policy.solved is None
    policy.act(observation)
    first = policy.solved
    policy.act(observation)
    assert policy.solved is first
    policy.reset(1)
    assert policy.solved is None
    policy.act(observation | {"image": picture(0.3, 0.3)})
    assert not np.array_equal(first.contact, policy.solved.contact)


def test_without_a_calibrated_camera_there_is_no_map() -> None:
    assert FospLearner(SPECS, tiny_config(table_map=AREA)).model.table_map is None
