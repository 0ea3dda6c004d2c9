mod exactness;
mod goldens;
mod loading;
mod tokenizers_of;
