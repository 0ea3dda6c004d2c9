mod exactness;
mod loading;
mod tokenizers_of;
