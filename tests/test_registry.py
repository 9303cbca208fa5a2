"""The table of classes that users choose by a name."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from sklearn.base import clone

from d3rlpy.registry import Configurable, Registry, nearest, to_plain


class Animal(Configurable):
    pass


@dataclass
class Dog(Animal):
    TYPE: ClassVar[str] = "dog"
    age: int = 3
    weights: tuple[float, ...] = (1.0,)


def make_registry():
    registry = Registry("animal", Animal)
    registry.register(Dog)
    return registry


def test_object_survives_its_json():
    dog = Dog(age=np.int64(5), weights=(1.0, 2.5))
    values = json.loads(json.dumps(dog.to_dict()))
    assert values == {"type": "dog", "params": {"age": 5, "weights": [1.0, 2.5]}}
    again = make_registry().resolve(values)
    assert isinstance(again, Dog)
    assert again.age == 5


def test_parameters_are_the_given_objects():
    weights = (1.0, 2.0)
    assert Dog(weights=weights).get_params()["weights"] is weights


def test_name_dictionary_and_object_mean_an_object():
    registry, dog = make_registry(), Dog()
    assert registry.resolve(dog) is dog
    assert registry.resolve("dog") == Dog()
    assert registry.resolve({"type": "dog"}) == Dog()
    assert registry.create("dog", age=7).age == 7


def test_unknown_name_suggests_the_nearest():
    with pytest.raises(ValueError, match=r"no animal is called 'dgo'; known are \['dog'\]. Did you mean 'dog'\?"):
        make_registry().create("dgo")


@pytest.mark.parametrize("value", [3, None, {"params": {}}, object()])
def test_other_things_are_refused_with_what_is_expected(value):
    with pytest.raises(TypeError, match=r"of the kind animal, its name \(one of \['dog'\]\) or a dictionary"):
        make_registry().resolve(value)


def test_name_belongs_to_one_class():
    registry = make_registry()
    assert registry.register(Dog) is Dog
    with pytest.raises(ValueError, match="the animal name 'dog' already belongs to Dog"):
        registry.register(type("Other", (Animal,), {"TYPE": "dog"}))


def test_class_that_is_defined_again_takes_the_place_of_the_first():
    """As when a notebook cell runs twice; an object of the first class stays usable."""

    def cell():
        @dataclass
        class Cat(Animal):
            TYPE: ClassVar[str] = "cat"

        return Cat

    registry, first, second = make_registry(), cell(), cell()
    registry.register(first)
    old = registry.create("cat")
    assert registry.register(second) is second
    assert type(registry.create("cat")) is second
    assert registry.resolve(old) is old


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"type": "dog", "age": 9},
            r"has the keys \['age'\] besides 'type' and 'params': parameters belong into 'params'",
        ),
        ({"type": "dog", "params": None}, "'params' of the animal 'dog' must be a dictionary, got None"),
        ({"type": "dog", "params": [3]}, r"'params' of the animal 'dog' must be a dictionary, got \[3\]"),
        (
            {"type": 5},
            r"of the kind animal, its name .* or a dictionary with 'type' and 'params', got \{'type': 5\}",
        ),
        ({"type": ["dog"]}, r"of the kind animal, .* got \{'type': \['dog'\]\}"),
    ],
)
def test_dictionary_of_another_form_is_refused(value, message):
    with pytest.raises(TypeError, match=message):
        make_registry().resolve(value)


class Plain(Animal):
    TYPE = "plain"


class Undeclared(Animal):
    TYPE = "undeclared"

    def __init__(self, width):
        self.width = width


def test_class_without_parameters_needs_not_be_a_dataclass():
    registry = make_registry()
    registry.register(Plain)
    assert clone(Plain()).get_params() == {}
    assert type(registry.resolve(Plain().to_dict())) is Plain


def test_constructor_with_parameters_that_are_no_fields_is_refused_when_it_is_registered():
    with pytest.raises(TypeError, match="Undeclared must be a dataclass, so that its fields are its parameters"):
        make_registry().register(Undeclared)
    with pytest.raises(TypeError, match="Undeclared must be a dataclass"):
        Undeclared(3).get_params()


def test_object_without_a_name_says_what_it_lacks():
    with pytest.raises(TypeError, match="Animal needs a class attribute TYPE, the name it is chosen by"):
        Animal().to_dict()


def test_class_of_another_kind_is_refused():
    for other in (int, Dog(), lambda: Dog()):
        with pytest.raises(TypeError, match="is no animal: it must be a class derived from Animal"):
            make_registry().register(other)


def test_class_without_a_name_is_refused():
    with pytest.raises(TypeError, match="Nameless needs a class attribute TYPE"):
        make_registry().register(type("Nameless", (Animal,), {}))


def test_plain_values_are_those_of_json():
    value = {"a": np.float32(0.5), "b": (np.arange(2), [np.bool_(True)]), 3: None}
    assert json.loads(json.dumps(to_plain(value))) == {"a": 0.5, "b": [[0, 1], [True]], "3": None}


def test_tensors_become_lists():
    assert to_plain({"mean": torch.tensor([1.0, 2.0]), "eps": torch.tensor(0.5)}) == {"mean": [1.0, 2.0], "eps": 0.5}


def test_far_words_are_not_suggested():
    assert nearest("xyz", ["dog", "cat"]) == ""
