// The calibration text that comes with nibble: short pieces of prose, talk, lists, numbers and code, written for it.
#pragma once
#include <array>
#include <string_view>

namespace nibble {

inline constexpr std::array<std::string_view, 16> kBuiltinText{
    "The lighthouse on the northern point was built when ships still carried wool and salt along the coast. Its keeper "
    "climbed a hundred and twelve steps every evening, trimmed the wick, and wrote the weather into a grey book. Most "
    "pages say the same: wind from the west, some rain, two sails before dusk. On the few nights when something did "
    "happen the handwriting grows smaller, as if he had been afraid of running out of paper.",
    "\"Did you bring the map?\" asked Mara. \"I thought you had it,\" said her brother, and turned out his pockets: a "
    "piece "
    "of string, three coins, half a biscuit. They looked at each other and began to laugh. \"Then we shall follow the "
    "river,\" she said. \"Rivers always know where they are going.\"",
    "Photosynthesis turns light into chemical energy. In the leaves of green plants, chlorophyll absorbs mostly red "
    "and "
    "blue light; water is split, oxygen is released, and the energy that remains is stored in sugars made from carbon "
    "dioxide. Nearly all food chains on Earth begin with this process, and most of the oxygen in the air comes from "
    "it.",
    "To make a simple soup for four people you need two onions, three carrots, one litre of stock, a handful of "
    "lentils, "
    "salt, pepper and a little oil. First cut the onions and fry them gently until they are soft. Then add the "
    "carrots, "
    "stir for five minutes, pour in the stock and the lentils, and let everything simmer for half an hour.",
    "def mean(values):\n    \"\"\"The arithmetic mean of a list of numbers.\"\"\"\n    if not values:\n        raise "
    "ValueError(\"an empty list has no mean\")\n    return sum(values) / len(values)\n\n\nfor name, marks in "
    "table.items():\n    print(f\"{name}: {mean(marks):.2f}\")\n",
    "The committee met on 14 March 2019 to discuss the budget. Of the 2,450 members, 1,318 had voted, which is 53.8 "
    "per "
    "cent; the proposal was accepted by 702 votes to 616. The treasurer reported an income of $48,200 and expenses of "
    "$51,975, and asked for patience until the new hall could be rented out.",
    "Once there was a small fox who could not sleep. She counted stars, but the clouds came; she counted drops, but "
    "the "
    "rain stopped. At last she asked the old owl for advice. \"Close your eyes,\" said the owl, \"and listen to the "
    "forest breathing.\" The fox closed her eyes. She heard leaves, a far brook, her own heart. And before the owl had "
    "finished speaking she was asleep.",
    "A function is continuous at a point if small changes of its argument lead to small changes of its value. More "
    "exactly: for every e > 0 there is a d > 0 such that |x - a| < d implies |f(x) - f(a)| < e. Sums, products and "
    "compositions of continuous functions are continuous; a limit of continuous functions need not be.",
    "Question: Which planet has the most moons?\nAnswer: Saturn, with more than a hundred known ones; Jupiter comes "
    "second.\n\nQuestion: Why is the sky blue?\nAnswer: Air scatters short waves of light more strongly than long "
    "ones, "
    "so that blue reaches our eyes from all sides.\n",
    "Dear Mr Hollis, thank you for your letter of the third. I am sorry to hear that the chair arrived with a broken "
    "leg. We shall of course replace it free of charge; please keep the old one until our driver calls on Thursday "
    "between nine and noon. If that does not suit you, let us know by telephone. Yours sincerely, A. Pemberton",
    "The printing press changed how knowledge travelled. Before it, a book was copied by hand, and each copy added its "
    "own mistakes. Within fifty years of its invention millions of volumes had been printed, prices had fallen, and "
    "scholars in distant towns could at last argue about the same page.",
    "Install the package, then run the server:\n\n1. Copy `settings.example` to `settings.toml`.\n2. Set `port = 8080` "
    "and choose a folder for the data.\n3. Start it with `serve --config settings.toml`.\n\nIf the port is in use, the "
    "program stops with exit code 2 and names the process that holds it.\n",
    "Night trains smell of coffee and wet coats. The man opposite me reads the same newspaper for the third time; a "
    "child presses her nose to the window and reports every light she sees. Somewhere behind the hills a city is "
    "waiting, but nobody seems to be in a hurry to arrive.",
    "In economics, the price of a good tends to rise when more people want it or when less of it is offered. This is a "
    "simple model, and real markets are slower: contracts last for years, shops dislike changing labels, and buyers "
    "remember what they paid the last time. Even so it explains why umbrellas cost more when it rains.",
    "<ul>\n  <li><a href=\"/about\">About us</a></li>\n  <li><a href=\"/contact\">Contact</a></li>\n</ul>\n<p class="
    "\"note\">Opening hours: Monday to Friday, 9:30-17:00. Closed on public holidays.</p>\n",
    "The match began in heavy rain and ended in sunshine. After twenty minutes the visitors led by a goal that their "
    "own captain called lucky; after an hour it was two all, and the crowd had stopped sitting down. The winner came "
    "from the youngest player on the field, who said afterwards that he had meant to pass.",
};

}  // namespace nibble
