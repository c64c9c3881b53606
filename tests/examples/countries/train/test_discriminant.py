"""The discriminant against what it should find in made-up features."""

import torch

from examples.countries.train.discriminant import column_space, discriminant_map, leading_directions


def test_the_discriminant_keeps_what_differs_between_maps_alone() -> None:
    draw = torch.Generator().manual_seed(0)
    features = torch.zeros(50, 4, 8)
    features[..., 0] = torch.randn(50, 1, generator=draw)  # differs between maps
    features[..., 1:] = torch.randn(50, 4, 7, generator=draw)  # differs between views
    matrix, mean = discriminant_map(features, torch.eye(8)[:, 3:4])
    torch.testing.assert_close(mean, features.mean((0, 1)))
    assert matrix[:3].abs().max() == 0
    assert matrix[3, 0].abs() > 10 * matrix[3, 1:].abs().max()


def test_leading_directions_are_those_of_most_spread() -> None:
    draw = torch.Generator().manual_seed(0)
    words = torch.randn(500, 6, generator=draw) * torch.tensor([1.0, 9, 1, 1, 5, 1]) + 7
    directions = leading_directions(words, 2)
    torch.testing.assert_close(directions.T @ directions, torch.eye(2), atol=1e-5, rtol=0)
    assert directions[1, 0].abs() > 0.99
    assert directions[4, 1].abs() > 0.99


def test_the_column_space_spans_every_output() -> None:
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 2, generator=draw) @ torch.randn(2, 9, generator=draw)
    columns = column_space(weight, 2)
    outputs = torch.randn(20, 9, generator=draw) @ weight.T
    torch.testing.assert_close(outputs @ columns @ columns.T, outputs, atol=1e-4, rtol=1e-4)
