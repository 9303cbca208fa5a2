"""The table of classes that users choose by a name."""

import json
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

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
    with pytest.raises(TypeError, match=r"expected a animal, its name \(one of \['dog'\]\) or a dictionary"):
        make_registry().resolve(value)


def test_name_belongs_to_one_class():
    registry = make_registry()
    assert registry.register(Dog) is Dog
    with pytest.raises(ValueError, match="the animal name 'dog' already belongs to Dog"):
        registry.register(type("Other", (Animal,), {"TYPE": "dog"}))


def test_class_without_a_name_is_refused():
    with pytest.raises(TypeError, match="Nameless needs a class attribute TYPE"):
        make_registry().register(type("Nameless", (Animal,), {}))


def test_plain_values_are_those_of_json():
    value = {"a": np.float32(0.5), "b": (np.arange(2), [np.bool_(True)]), 3: None}
    assert json.loads(json.dumps(to_plain(value))) == {"a": 0.5, "b": [[0, 1], [True]], "3": None}


def test_far_words_are_not_suggested():
    assert nearest("xyz", ["dog", "cat"]) == ""
